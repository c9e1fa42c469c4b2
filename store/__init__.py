"""Where models come from: checkpoints of the hub, and bundles pulled into a store under a name.

May import: runtime/bundle, runtime/system.
"""
