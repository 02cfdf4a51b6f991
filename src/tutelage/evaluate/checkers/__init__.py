"""Checkers of replies: of text, numbers, JSON, calls and code, one file a family. Imports without torch."""
