"""What choices cost: a process of its own, a form for answers, a cache on the disk, prompts in int8; and a cancel.

May import: runtime, runtime/language, runtime/onnx_runtime, runtime/pictures, runtime/planning, runtime/prompt_engine,
benchmark/seeded, benchmark/speed.
"""
