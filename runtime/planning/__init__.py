"""What fits where: shapes and bytes of a model, memory of a device, layers on devices, options chosen from that.

May import: runtime/bundle, runtime/ggml, runtime/pictures, runtime/system.
"""
