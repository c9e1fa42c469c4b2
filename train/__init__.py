"""LLaVA's recipe: two stages of training on transformers' Trainer.

May import: runtime/prompts, runtime/system, train/data, train/loop, train/model.
"""
