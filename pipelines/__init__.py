"""Job entry points: parse, build, run, report; no mathematics."""

import os

# Torch asks Linux for huge pages: large tensors fault in 512 times fewer pages (docs/performance.md). Torch reads
# it when it is imported, which no module of this package does before.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
