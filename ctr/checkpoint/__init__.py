"""What a run remembers, on disk: written whole or not at all, verified before it is read."""
