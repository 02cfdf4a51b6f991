"""The step: `run.py` turns settings into objects, `loop.py` is the training loop, the rest are its parts."""
