"""The reference recipe."""
