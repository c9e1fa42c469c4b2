"""The way in and out: who may ask, bodies within limits, replies that live as long as somebody listens.

May import: serve/models.
"""
