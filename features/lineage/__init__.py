"""A data set that goes on from another: a new day with the codes, scales and counts of the days before."""
