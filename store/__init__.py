"""Where models come from: the Hugging Face hub.

May import: nothing of ours but ground files.
"""
