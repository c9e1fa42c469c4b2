"""The largest models walked through export, quantization and sharding at their real widths.

May import: runtime/ggml, benchmark/seeded.
"""
