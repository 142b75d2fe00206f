"""Places in an object store: named, listed, fetched into a local cache, written to."""
