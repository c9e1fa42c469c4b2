"""The peers of the speed contest, each behind the same task.

May import: runtime, runtime/bundle, runtime/ggml, runtime/pictures, runtime/processes, runtime/prompts,
runtime/system.
"""
