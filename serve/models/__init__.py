"""The models that are served: what the server needs of one, loading and unloading, and the line before them.

May import: runtime, runtime/bundle, runtime/durable, runtime/engine, runtime/pictures, runtime/prompts,
runtime/system, serve/requests.
"""
