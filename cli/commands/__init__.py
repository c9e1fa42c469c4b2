"""One file a command.

May import: runtime/*, store/*, export/*, quantize/*, train/*, benchmark/*, serve/*, cli/chat, cli/configuration,
cli/doctor, cli/terminal.
"""
