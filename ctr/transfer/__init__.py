"""A trained run meets another data set: it goes on there, or scores it, row by row by value."""
