"""Scaling: how the loss falls with size and compute, predicted from small trainings before the largest."""
