"""Sources -> how often the rows of each go on, with every repeat and every drop in the books."""

from tutelage.curate.mixing.step import MIX, Mix

__all__ = ["MIX", "Mix"]
