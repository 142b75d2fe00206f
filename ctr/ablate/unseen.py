"""Whether the test rows of a plan's trainings are unseen by the runs that these go on from."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ctr.ablate.subruns import SubRun
from ctr.build import open_dataset
from ctr.runs.learned import JudgedPart, learned_until, unseen_warning

_log = logging.getLogger(__name__)


def seen_facts(subruns: Sequence[SubRun]) -> dict[str, str]:
    """`warning` for the head of a report, said on the terminal too; empty where all test rows are unseen."""
    warnings = dict.fromkeys(said for subrun in subruns if (said := _warning(subrun)) is not None)
    for warning in warnings:
        _log.warning("%s", warning)
    return {"warning": "; ".join(warnings)} if warnings else {}


def _warning(subrun: SubRun) -> str | None:
    """Of one training, by the name of its variant, which its seeds share."""
    if not (subrun.path / "config.yaml").is_file():
        return None
    learned = learned_until(subrun.path)
    if not any(rows.through for rows in learned.rows):
        return None
    part = JudgedPart.of(open_dataset(subrun.config, verify=False), "test")
    return unseen_warning(subrun.trials[0].variant, learned, part)
