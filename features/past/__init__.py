"""What lies strictly before a moment: counters, matches, pairs, pages, histories."""
