"""Layers that keep less for the backward pass, or need fewer passes over memory: same numbers within rounding."""
