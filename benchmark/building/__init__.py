"""A benchmark of one's own photographs: chosen by clusters, asked blind, references drafted and confirmed by a person.

May import: runtime, runtime/bundle, runtime/language, runtime/pictures, runtime/prompts, runtime/system,
benchmark/accuracy, benchmark/copies, benchmark/data, benchmark/judging, benchmark/reading.
"""
