"""The configuration file and variables that set options: what may be set, and what is.

May import: runtime/bundle, runtime/system, cli/terminal.
"""
