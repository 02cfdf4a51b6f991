"""Several processes that share a step: the process group, sharding, and errors that all of them see."""
