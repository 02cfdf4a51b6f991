"""Rows that were not there: instructions and replies that a model writes, each held against what is there already."""
