"""Raw logs to a dataset on disk; Polars and Arrow, never torch."""
