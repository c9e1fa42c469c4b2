"""A server for bundles on this machine: OpenAI's and Ollama's HTTP dialects over one model that computes at a time.

May import: serve/endpoints, serve/http, serve/models.
"""
