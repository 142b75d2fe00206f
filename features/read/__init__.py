"""Tables as they were logged → impressions and events in order, checked."""
