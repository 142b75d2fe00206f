"""The files of a dataset directory: their layout, how they are written and mapped."""
