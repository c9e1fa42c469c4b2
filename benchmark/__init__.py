"""What quantization cost, and how fast it is."""
