"""The same picture twice: how pictures look, how far two are apart, which are copies, which a training set has.

May import: runtime/pictures, runtime/prompts, runtime/system.
"""
