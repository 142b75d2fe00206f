"""Features and events → tokens of width D: non-sequence tokens, event tokens, n-grams, the event filter."""
