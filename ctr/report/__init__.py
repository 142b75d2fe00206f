"""Pages for people: the frame of all pages, the evaluation report and its plots."""
