"""Numbers of a run, or rows of data -> one offline HTML page."""
