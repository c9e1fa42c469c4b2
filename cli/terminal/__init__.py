"""What the commands share: options, progress, files written, the tables they print.

May import: runtime, runtime/bundle, runtime/durable, runtime/ggml, runtime/pictures, runtime/pictures/files,
runtime/planning, runtime/system, store.
"""
