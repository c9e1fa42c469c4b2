"""Answers in free form, marked by a model behind an endpoint.

May import: runtime/pictures, runtime/system, benchmark/data.
"""
