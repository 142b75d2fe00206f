"""What lies strictly before a moment: counters, matches, pages, histories."""
