"""From a picture to rows of embeddings: opened, cut into tiles, encoded by the vision tower, packed with newlines.

Kinds of tower and the recipes of the vision part are tables here too.

May import: runtime/onnx_runtime, runtime/pictures/files, runtime/prompts, runtime/system.
"""
