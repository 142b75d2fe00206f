"""A run directory: its lock, journal and identity; planned faults, signals, versions."""
