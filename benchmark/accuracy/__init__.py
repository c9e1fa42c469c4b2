"""What quantization cost: answers and distributions of two bundles, compared with intervals.

May import: runtime, runtime/bundle, runtime/engine, runtime/language, runtime/prompts, runtime/system,
benchmark/data, benchmark/reading.
"""
