"""The Trainer, and what it writes down of the loss.

May import: train/data, train/model.
"""
