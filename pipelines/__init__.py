"""Job entry points: parse, build, run, report; no mathematics."""

import os

# Torch asks Linux for huge pages, so that large tensors fault in fewer pages (docs/performance.md). It reads
# this when it is imported, which no module of this package does before.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
