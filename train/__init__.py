"""Training: the reference recipe in PyTorch. Connector first, then everything."""
