"""The peers of the speed contest, each behind the same task.

May import: runtime, runtime/bundle, runtime/language, runtime/pictures, runtime/processes, runtime/prompts.
"""
