"""ctr.build: what a run may learn of a data set whose negatives are sampled, or within requests."""

from __future__ import annotations

from typing import Any

import pytest

from ctr.build import run_view
from ctr.config import RunConfig, parse_config
from features.dataset import Manifest, SplitInfo, TaskInfo
from features.errors import ConfigError
from tests.ctr.batches import manifest

CLICK, BUY, LIKE = TaskInfo(name="click"), TaskInfo(name="buy", given="click"), TaskInfo(name="like")


def config(**sections: Any) -> RunConfig:
    return parse_config({"dataset": "d", "run": "r", **sections})


def data(requests: int = 10, **changes: Any) -> Manifest:
    train = SplitInfo(requests=requests, impressions=30, positives=3, time_range=None, clock_range=None)
    return manifest(tasks=[CLICK, BUY, LIKE], splits={"train": train}, **changes)


def use(*names: str) -> dict[str, Any]:
    return {"kind": "shared_bottom", "use": list(names)}


def test_tasks_of_rows_that_are_all_kept_may_be_learned_beside_sampled_negatives() -> None:
    tenth = {"negatives": 0.1}
    assert run_view(config(train=tenth), data()).tasks == [CLICK]
    assert run_view(config(train=tenth, tasks=use("click", "buy")), data()).tasks == [CLICK, BUY]
    with pytest.raises(ConfigError, match=r"further tasks must be given another label.*got \['like'\]"):
        run_view(config(train=tenth, tasks=use("click", "like")), data())
    with pytest.raises(ConfigError, match=r"tasks.use must begin with the label .* click, got like"):
        run_view(config(tasks=use("like")), data(sampling=0.2))


@pytest.mark.parametrize("kind", ["pairwise", "listwise"])
def test_a_loss_within_requests_needs_requests_of_several_rows(kind: str) -> None:
    assert run_view(config(train={"loss": kind}), data()).tasks == [CLICK]
    with pytest.raises(ConfigError, match=f"train.loss {kind} compares the rows of a request, but all 30 "):
        run_view(config(train={"loss": kind}), data(requests=30))


@pytest.mark.parametrize("every", [["*"], ["?*"], [c.name for c in data().features]])
def test_a_run_reads_a_feature(every: list[str]) -> None:
    """Of one that drops all but the last it is the last that is left."""
    names = [column.name for column in data().features]
    assert [c.name for c in run_view(config(drop=names[1:]), data()).features] == names[:1]
    with pytest.raises(ConfigError, match=r"drop must leave a feature of data set .* no feature is left"):
        run_view(config(drop=every), data())
