"""A bundle becomes a smaller one.

May import: runtime, runtime/bundle, runtime/ggml, runtime/pictures, runtime/system, store, quantize/importance,
quantize/language, quantize/vision.
"""
