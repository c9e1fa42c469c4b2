"""Picture files as they come: what kind a file is, its pixels without what surrounds them, files that end early.

May import: nothing of ours but ground files.
"""
