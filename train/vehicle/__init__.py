"""The vehicle: a published small language model behind the demo's tower, to measure what quantization costs.

May import: train/*, runtime/*.
"""
