"""The language model becomes GGUF: settings, vocabulary, tensors.

May import: runtime/bundle, export/checkpoint, export/tokenizer.
"""
