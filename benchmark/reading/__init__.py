"""What an answer in free words says: which letter, which number.

May import: nothing of ours but ground files.
"""
