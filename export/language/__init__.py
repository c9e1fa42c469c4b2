"""The language model becomes GGUF: settings, vocabulary, tensors.

May import: runtime/bundle, runtime/ggml, runtime/planning, export/checkpoint, export/tokenizer.
"""
