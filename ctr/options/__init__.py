"""Options of a run as plain data: what is unknown, of another kind, or without effect is refused."""
