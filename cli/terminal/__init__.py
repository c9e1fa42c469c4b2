"""What the commands share: options, progress, files written, the tables they print.

May import: runtime, runtime/bundle, runtime/ggml, runtime/pictures, runtime/pictures/files, runtime/planning,
store.
"""
