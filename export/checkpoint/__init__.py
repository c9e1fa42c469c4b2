"""A trained checkpoint as it lies on disk: its layout, its config, its weights under one table of names.

May import: runtime/bundle, runtime/ggml, runtime/pictures, runtime/planning, runtime/system, store.
"""
