"""From a picture to rows of embeddings: opened, cut into tiles, encoded by the vision tower, packed with newlines.

May import: runtime/onnx_runtime, runtime/prompts, runtime/system.
"""
