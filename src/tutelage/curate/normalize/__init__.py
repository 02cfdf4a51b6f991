"""Row -> the same row as it was meant: no debris of encodings, exports and templates. Every edit is in the ledger."""

from tutelage.curate.normalize.step import NORMALIZE, Normalize

__all__ = ["NORMALIZE", "Normalize"]
