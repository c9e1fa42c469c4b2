"""A trained checkpoint becomes an fp16 bundle.

May import: runtime, runtime/bundle, runtime/ggml, runtime/pictures, runtime/planning, runtime/prompts,
runtime/system, store, export/checkpoint, export/language, export/pairs, export/tokenizer, export/verification,
export/vision.
"""
