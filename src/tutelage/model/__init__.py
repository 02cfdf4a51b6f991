"""Verbs on a model: locate, load, adapt, attend, loss.

`source` (names to folders), `machine` and `allocator` import without torch; every other module here needs the extra
`[train]`.
"""
