"""Job entry points: parse, build, run, report; no mathematics."""

import os

# Torch asks Linux for huge pages, so that large tensors fault in fewer pages (docs/performance.md). It reads
# this when it is imported, which no module of this package does before.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
# A thread of OpenMP spins while it waits for the others, by default ten times as long. Where another job has
# the core of one of them, two threads are then up to 17 times slower than one (docs/performance.md).
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "30000")
