"""Numbers of a run -> one offline HTML page.

A run folder goes in (`run_folder.py` reads it, never guessing), a page comes out (`page.py`). Every figure on the page
is one that a file of the run holds, put into words in one place (`figures.py`). The page needs no network: style,
script and drawings are inside it. It can be written at any moment of a run; what is not there yet is named.

Needs neither torch nor any other room.
"""

from tutelage.report.html.page import write

__all__ = ["write"]
