"""Which rows go on, when fewer are to than there are."""

from tutelage.curate.selection.step import SELECT

__all__ = ["SELECT"]
