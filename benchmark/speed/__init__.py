"""The speed contest, and the machine's own best rates beside it.

May import: runtime/bundle, runtime/language, runtime/pictures, runtime/processes, runtime/prompts, export/vision,
quantize/vision, benchmark/contestants, benchmark/seeded.
"""
