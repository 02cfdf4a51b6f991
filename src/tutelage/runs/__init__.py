"""The run folder: what each file is, the metrics log, what a run began with, its lock and trackers."""
