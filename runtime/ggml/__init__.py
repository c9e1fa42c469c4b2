"""ggml, the library under llama.cpp: its loader, types, recipes of the language model, tensors, devices, RPC backend,
and the compiling of llama.cpp.

May import: nothing of ours but ground files.
"""
