"""The vision tower and connector become an ONNX graph, and on a GPU what TensorRT or CUDA runs.

May import: runtime/bundle, runtime/onnx_runtime, runtime/pictures, runtime/system.
"""
