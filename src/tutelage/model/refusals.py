"""What the code of a model raises that is given what it does not take."""

REFUSALS = (TypeError, ValueError, RuntimeError, AttributeError, LookupError, AssertionError)
"""Caught where a model is tried, and nowhere else. Memory running out is one of them, `torch.OutOfMemoryError`, and is
raised again."""
