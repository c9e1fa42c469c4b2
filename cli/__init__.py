"""The llava-edge commands."""
