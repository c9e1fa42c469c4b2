"""What a run needs before it starts: parameters, memory of a device, hours.

May import: runtime/pictures, runtime/prompts, train/model.
"""
