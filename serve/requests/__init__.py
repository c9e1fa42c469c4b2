"""What a client sends, checked and turned into frozen values; nothing but RequestError comes out.

May import: nothing of ours but ground files.
"""
