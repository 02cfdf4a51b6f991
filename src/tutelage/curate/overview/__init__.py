"""What a curation did, gathered for people to look at: counts, samples of rows before and after, and a map of them."""
