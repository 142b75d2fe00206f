"""The interaction side of a two-stage model, a file for each way; `interactions.INTERACTIONS` has them."""
