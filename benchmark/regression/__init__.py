"""Text scores against picture scores: the table, the line through it, and the figure.

May import: runtime/system, benchmark/accuracy.
"""
