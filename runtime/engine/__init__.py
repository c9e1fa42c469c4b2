"""The engine: what a loaded bundle owns, in this process or in one of its own, and what is asked of it.

May import: runtime/bundle, runtime/durable, runtime/language, runtime/pictures, runtime/pictures/files,
runtime/planning, runtime/processes, runtime/prompt_engine, runtime/prompts, runtime/system.
"""
