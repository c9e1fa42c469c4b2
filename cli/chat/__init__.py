"""The chat in a terminal: lines, slash commands, dropped pictures, history, transcripts.

May import: runtime, runtime/engine, runtime/pictures, runtime/prompts, runtime/system, cli/terminal.
"""
