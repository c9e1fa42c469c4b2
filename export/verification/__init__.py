"""The reference's values on a built-in picture, and the rungs of fidelity they are measured on.

May import: runtime, runtime/pictures, runtime/prompts, runtime/system, export/checkpoint, export/tokenizer.
"""
