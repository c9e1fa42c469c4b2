"""The speed contest, and the machine's own best rates beside it.

May import: runtime/bundle, runtime/ggml, runtime/language, runtime/onnx_runtime, runtime/pictures,
runtime/planning, runtime/processes, runtime/prompts, runtime/system, export/vision, quantize/vision,
benchmark/contestants, benchmark/seeded.
"""
