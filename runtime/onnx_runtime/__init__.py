"""ONNX Runtime's sessions: providers in the order they are tried, and graphs compiled for this machine.

May import: runtime/system.
"""
