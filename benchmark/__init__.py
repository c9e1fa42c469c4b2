"""What a bundle gets right, and how fast it is.

May import: runtime, runtime/language, runtime/pictures, runtime/prompts, benchmark/accuracy, benchmark/data,
benchmark/reading.
"""
