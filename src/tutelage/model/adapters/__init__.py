"""LoRA and its relatives, prompt tuning, and several adapters on one base."""
