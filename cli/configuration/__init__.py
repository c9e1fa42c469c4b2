"""The configuration file and variables that set options: what may be set, and what is.

May import: runtime/system, cli/terminal.
"""
