"""fp32 master weights, optimizers, the learning-rate schedule, and the moving average of weights."""
