"""Next-behaviour generation: what a user does next, as the semantic ID of an item, token by token."""
