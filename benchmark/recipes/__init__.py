"""What each quantization recipe costs and gains: the tables of docs/quantization.md.

May import: runtime, runtime/bundle, runtime/onnx_runtime, runtime/pictures, runtime/system, export/vision,
quantize, quantize/vision, benchmark/accuracy, benchmark/data, benchmark/seeded, benchmark/speed.
"""
