"""The language model: llama.cpp's model and context, what the KV cache holds, sampling, text as it comes.

May import: runtime/bundle, runtime/ggml, runtime/prompt_engine, runtime/prompts, runtime/system.
"""
