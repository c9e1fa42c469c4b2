"""A language model and a projector as GGUF files, as llama.cpp's users have them, opened for a bundle.

May import: runtime/bundle, runtime/ggml, runtime/pictures, runtime/planning, runtime/prompts, export/checkpoint,
export/tokenizer.
"""
