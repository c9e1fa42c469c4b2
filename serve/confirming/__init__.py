"""The page on which a person confirms reference answers of a benchmark, one by one.

May import: runtime/pictures, serve, serve/http, serve/requests.
"""
