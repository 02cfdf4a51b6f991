"""A checkpoint -> findings: what its chat template, tokenizer and weights do to training."""
