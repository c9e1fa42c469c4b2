"""One file a command.

May import: runtime/*, store/*, export/*, quantize/*, train/*, benchmark/*, cli/chat, cli/doctor, cli/terminal.
"""
