"""What choices cost: a process of its own, a form for answers, a cache, int8 prompts, fewer positions; and a cancel.

May import: runtime, runtime/language, runtime/onnx_runtime, runtime/pictures, runtime/planning, runtime/processes,
runtime/prompt_engine, runtime/prompts, benchmark/accuracy, benchmark/data, benchmark/seeded, benchmark/speed.
"""
