"""The durable cache: encoded pictures and what was read of conversations, kept in files between processes.

May import: runtime/bundle, runtime/ggml, runtime/language, runtime/onnx_runtime, runtime/pictures, runtime/prompts,
runtime/system.
"""
