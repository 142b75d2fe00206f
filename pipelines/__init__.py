"""Job entry points: parse, build, run, report; no mathematics."""
