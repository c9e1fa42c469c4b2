"""Questions about pictures: folders in LLaVA's format, published sets, the demo's held-out questions.

May import: runtime/pictures, runtime/prompts, runtime/system, store, benchmark/reading.
"""
