"""A run from its first step to its last: loss, optimizers, one step, the loop, scoring, validation."""
