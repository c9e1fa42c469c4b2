"""What choices cost: a process of its own, a form for answers, a cache on the disk, prompts in int8; and a cancel.

May import: runtime, runtime/language, runtime/pictures, runtime/planning, benchmark/accuracy, benchmark/data,
benchmark/seeded, benchmark/speed.
"""
