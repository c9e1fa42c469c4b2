"""LLaVA's data set as samples: indexed, grouped by length, read by workers.

May import: runtime/pictures, runtime/prompts, runtime/system.
"""
