"""What ``llava-edge doctor`` finds and says about a machine.

May import: runtime/ggml, runtime/onnx_runtime, runtime/system, cli/terminal.
"""
