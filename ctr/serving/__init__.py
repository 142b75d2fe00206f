"""Scoring request by request: what belongs to a request is computed once, kept, and read by candidates."""
