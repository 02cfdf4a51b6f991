"""A configuration -> bytes and seconds, before anything is loaded.

Read in this order: `model_shape` (what a model is, from its config.json alone), `workload` (what a step will do to it),
`trace` (the engine's own forward and backward on tensors without memory), `memory` (the bytes), `seconds` (the time),
`devices` (this machine, and named GPUs), `fit` (what would make it fit), `plan` (all of it), `console` (for people).
"""
