"""The command line.

May import: cli/commands.
"""
