"""Conversation -> Conversation | Drop. So far: how alike two splits are, so that a test measures more than recall."""

from tutelage.curate.split_similarity import Similarity, most_similar

__all__ = ["Similarity", "most_similar"]
