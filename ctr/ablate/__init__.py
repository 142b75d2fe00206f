"""Ablation: what each part of a model is worth, from trainings of a plan on the same rows."""
