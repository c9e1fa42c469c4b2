"""The Trainer, and what it writes down of the loss.

May import: runtime/system, train/data, train/model.
"""
