"""Job entry points: parse, build, run, report; no mathematics."""

import os

# Torch asks Linux for huge pages, so that large tensors fault in fewer pages (docs/performance.md). It reads
# this when it is imported, which no module of this package does before.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
# A thread of OpenMP that waits for the others sleeps. Where another job has the core of one of them, all would spin
# for it: training beside one other job on two cores was up to 17 times slower than with one thread.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
