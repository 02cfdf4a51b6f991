"""Model -> numbers: held-out loss, exact JSON answers, and what a general set says was forgotten."""
