"""Rows -> train, validation and test, by cluster and never by row, with the proof that no pair across them is alike."""

from tutelage.curate.splitting.step import SPLIT, SplitRows

__all__ = ["SPLIT", "SplitRows"]
