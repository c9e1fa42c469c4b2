"""What each quantization recipe costs and gains: the tables of docs/quantization.md.

May import: runtime, runtime/bundle, runtime/ggml, runtime/language, runtime/onnx_runtime, runtime/pictures,
runtime/processes, runtime/system, export/vision, quantize, quantize/importance, quantize/language,
quantize/vision, benchmark/accuracy, benchmark/costs, benchmark/data, benchmark/seeded, benchmark/speed.
"""
