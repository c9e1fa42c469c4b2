"""ggml, the library under llama.cpp: its loader, its types, its tensors, its devices and its RPC backend.

May import: nothing of ours but ground files.
"""
