"""Conversation -> Conversation | Drop. So far: how alike two splits are, so that a test measures more than recall."""

from tutelage.curate.near_duplicates import Likeness, most_alike

__all__ = ["Likeness", "most_alike"]
