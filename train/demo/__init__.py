"""The demo model: everything the real recipe takes ready-made, trained from scratch on drawn pictures.

May import: train/*, runtime/*.
"""
