"""Importance matrices: which columns matter, by activations on conversations about pictures.

May import: runtime, runtime/bundle, runtime/engine, runtime/ggml, runtime/language, runtime/prompts,
runtime/system.
"""
