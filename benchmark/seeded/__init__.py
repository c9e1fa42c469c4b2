"""Models of real shapes with seeded weights, where no trained one is at hand.

May import: runtime/pictures, runtime/planning, runtime/system, benchmark/contestants.
"""
