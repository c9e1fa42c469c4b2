"""The vision graph in f16, int8 or blocks of 4 and 8 bits.

May import: runtime/onnx_runtime, runtime/pictures, runtime/system.
"""
