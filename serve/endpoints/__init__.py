"""The dialects: which path does what, and how events of a job are spelt in each.

May import: runtime, runtime/pictures, serve/http, serve/models, serve/requests.
"""
