"""Models of real shapes with seeded weights, where no trained one is at hand.

May import: runtime/bundle, benchmark/contestants, benchmark/rehearsal, benchmark/speed.
"""
