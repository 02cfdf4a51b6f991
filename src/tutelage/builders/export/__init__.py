"""A finished run -> what leaves the house: `targets.py` lists the forms, a function each; settings stop here."""
