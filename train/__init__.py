"""LLaVA's recipe: two stages of training on transformers' Trainer.

May import: train/data, train/loop, train/model.
"""
