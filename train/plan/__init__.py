"""What a run needs before it starts: parameters, memory of a device, hours.

May import: runtime/prompts, train/model.
"""
