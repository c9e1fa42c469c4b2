"""The largest models walked through export, quantization and sharding at their real widths.

May import: runtime/planning, runtime/system, benchmark/seeded.
"""
