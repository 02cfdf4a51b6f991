"""Two replies to one prompt -> which is better, said by people or by a judge that do not know whose they are."""
