"""Models, each a page that reads like its paper."""
