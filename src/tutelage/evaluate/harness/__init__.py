"""Tasks of EleutherAI's lm-evaluation-harness, asked of a model here; its package, lm-eval, is an extra."""
