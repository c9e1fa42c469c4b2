"""What each quantization recipe costs and gains: the tables of docs/quantization.md.

May import: runtime, runtime/bundle, runtime/pictures, export/vision, quantize, quantize/vision, benchmark,
benchmark/accuracy, benchmark/speed.
"""
