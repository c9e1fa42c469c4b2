"""Trained checkpoint to fp16 bundle."""
