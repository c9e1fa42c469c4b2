"""The checkpoint's tokenizer and chat template, described for the bundle and held against the reference.

May import: runtime/language, runtime/prompts, export/checkpoint.
"""
