"""Importance matrices: which columns matter, by activations on conversations about pictures.

May import: runtime, runtime/bundle, runtime/ggml, runtime/language, runtime/pictures, runtime/prompts,
runtime/system.
"""
