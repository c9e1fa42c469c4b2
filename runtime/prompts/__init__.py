"""From messages to segments: chat templates, what is known of a tokenizer, conversations in LLaVA's JSON.

May import: runtime/system.
"""
