"""What the code of a model raises that is given what it does not take."""

REFUSALS = (TypeError, ValueError, RuntimeError, AttributeError, LookupError, AssertionError)
"""Caught where a model is tried, and nowhere else. Memory that runs out is a RuntimeError among them, and says nothing
of the model: every place that catches them raises it again (`model.out_of_memory.is_out_of_memory`)."""

FAILURES = (*REFUSALS, ArithmeticError, MemoryError)
"""What may be raised as a model is measured: it does not take an input, or memory runs out. Where several processes
measure together, `distributed.collective_errors.failures` are caught instead."""
