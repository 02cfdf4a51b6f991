"""The public face: what `import tutelage as tt` hands out, a file for each kind of thing.

Data that a program holds goes in through `data`, runs come out of `actions` as a `Run`; `examples` and `trainer` are
for those who write their own loop. The command line calls the same rooms.
"""
