"""Replies to served prompts: one engine that evaluation, chat and the Python API share."""
