"""Prompts, and what people write and choose for them -> rows: nothing that was written is lost."""
