"""The machine and its disk: processor, memory, the user's cache folder, files that appear whole or not at all.

May import: nothing of ours but ground files.
"""
