"""The model that is trained: assembled from its halves, its parts frozen or not, loaded and saved.

May import: runtime/pictures, runtime/prompts, runtime/system, train/data.
"""
