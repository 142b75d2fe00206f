"""What `ctr bench` measures, by name; each module's `run(settings)` gives a `SuiteResult`."""

from __future__ import annotations

from collections.abc import Callable

from ctr.bench.results import Settings, SuiteResult
from ctr.bench.suites import (
    ablate,
    candidates,
    curves,
    length,
    loader,
    memory,
    models,
    optimizer,
    overlap,
    profile,
    retrieval,
    score,
    train,
    unique,
)

SUITES: dict[str, Callable[[Settings], SuiteResult]] = {
    "train": train.run,
    "ablate": ablate.run,
    "length": length.run,
    "candidates": candidates.run,
    "unique": unique.run,
    "memory": memory.run,
    "loader": loader.run,
    "optimizer": optimizer.run,
    "overlap": overlap.run,
    "models": models.run,
    "score": score.run,
    "retrieval": retrieval.run,
    "curves": curves.run,
    "profile": profile.run,
}
# Not among them: four that take minutes each, and that of `make profile`, which compares nothing.
DEFAULT = tuple(name for name in SUITES if name not in ("models", "curves", "score", "retrieval", "profile"))
