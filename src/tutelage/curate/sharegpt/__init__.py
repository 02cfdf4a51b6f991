"""Conversations copied from a chat service's page -> the same as they were meant, whole exchanges, not too long."""

from tutelage.curate.sharegpt.step import SHAREGPT, Sharegpt

__all__ = ["SHAREGPT", "Sharegpt"]
