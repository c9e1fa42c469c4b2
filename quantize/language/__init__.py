"""The language model quantized with llama.cpp's types and rounding, tensor by tensor.

May import: runtime/bundle, runtime/ggml, runtime/system.
"""
