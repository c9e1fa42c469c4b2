"""Processes beside the application: llama.cpp isolated in a child, and workers on other machines.

May import: runtime/bundle, runtime/ggml, runtime/language, runtime/system.
"""
