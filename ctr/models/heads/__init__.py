"""From what is read of a candidate to a logit for each task: one file for each way to share between tasks."""
