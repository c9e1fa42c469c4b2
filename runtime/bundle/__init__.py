"""The bundle on disk: its manifest, its files, GGUF files read and written, work that a killed run continues.

May import: runtime/ggml, runtime/pictures, runtime/prompts, runtime/system.
"""
