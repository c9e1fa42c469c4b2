"""Long prompts read faster: their products and attention by onnxruntime, inside llama.cpp's own graph.

May import: runtime/bundle, runtime/ggml, runtime/onnx_runtime, runtime/system.
"""
