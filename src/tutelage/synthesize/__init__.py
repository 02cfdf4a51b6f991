"""Rows that are made: tables become instructions (`tasks`); what a model writes is held against what is there."""
