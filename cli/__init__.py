"""The command line.

May import: runtime, cli/commands, cli/configuration, cli/terminal.
"""
