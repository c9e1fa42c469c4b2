"""The language model becomes GGUF: settings, vocabulary, tensors.

May import: runtime/bundle, runtime/ggml, export/checkpoint, export/tokenizer.
"""
