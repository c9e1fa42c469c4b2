"""The chat in a terminal: lines, slash commands, dropped pictures, history, transcripts.

May import: runtime, runtime/bundle, runtime/engine, runtime/pictures, runtime/prompts, runtime/system,
cli/terminal.
"""
