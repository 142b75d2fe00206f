"""Batches to model to training to evaluation."""

from __future__ import annotations

from ctr.runs.versions import check_versions

# Before any other module of the package imports torch or torchrec, whose own errors would not name the mend.
check_versions()
