"""One file a command.

May import: runtime/*, store/*, export/*, quantize/*, train/*, benchmark/*, serve/*, cli/terminal.
"""
