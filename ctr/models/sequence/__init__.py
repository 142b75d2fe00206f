"""The sequence side of a two-stage model, a file for each way; `sides.SIDES` has them."""
