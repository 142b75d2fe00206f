"""Tuning that does not fool itself: a search on the validation part, and its winners on later days, once."""
