"""Does an ablation find the truth? On the simulated log, where it is known which features matter.

    python -m tests.ctr.ablate.truth --repeats 20

Every repeat draws another log. A feature that clicks depend on (the candidate's category in the history) and
two that are noise are left out, one at a time. A repeat is right if leaving out the first is found to hurt
and neither noise feature gets a verdict. The true feature is a large one: small ones, such as the position
(0.006 AUC), are missed as often as the detectable difference of so small a log says.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ctr.ablate.ablation import Ablation
from ctr.ablate.plan import parse_plan
from features.prepare import prepare
from features.spec import Spec, load_spec, parse_spec
from features.synthetic import simulate
from pipelines.ablate import ablate
from pipelines.ablate_worker import work
from tests.ctr.ablate.small import SPEC, Inline, results_of

USERS = 2000
TRUE = ("match_category",)
NOISE = ("noise_context", "noise_item")
BASE: dict[str, Any] = {
    # Matches carry the history; one short sequence keeps the model whole.
    # Other matches of the category would stand in for the one that is left out.
    "drop": ["view", "cart", "user", "item", "tags", "brand", "country", "match_clicked", "match_skipped"],
    "model": {"d_model": 12, "layers": 1, "heads": 2, "head_hidden": [16], "dense_bins": 4},
    "embedding": {"dim": 8, "optimizer": "adam", "lr": 0.003},
    "optimizer": {"lr": 0.003, "warmup_steps": 20, "ema_decay": 0.97},  # less noise of training
    "loader": {"batch_rows": 512, "max_len": {"search": 2}},
    "train": {"epochs": 2, "device": "cpu"},
    "tracking": {"uri": None},
}


def spec_with_noise(log: Path) -> Spec:
    """The shipped spec with the log's noise columns as features."""
    data = load_spec(SPEC).model_dump(mode="json", exclude_unset=True)
    data["source"]["path"] = str(log)
    for name, column in (("noise_context", "noise_context"), ("noise_item", "item.noise_item")):
        data["tables"][name] = {}
        data["features"][name] = {"column": column, "table": name}
        data["tokens"]["cross"].append(name)
    return parse_spec(data, what="spec with noise")


def verdicts(folder: Path, *, seed: int, users: int = USERS) -> dict[str, dict[str, Any]]:
    """Feature → its judgement in AUC, on a log of this seed; what lies in the folder already is used."""
    if not (folder / "dataset").exists():
        simulate(folder / "log", seed=seed, users=users)
        prepare(spec_with_noise(folder / "log"), folder / "dataset", base=folder)
    plan = parse_plan(
        {
            "name": "truth",
            "base": {"dataset": str(folder / "dataset"), **BASE},
            "out": str(folder / "out"),
            "seeds": [1, 2, 3],
            "noise": "pooled",
            "metrics": ["auc"],
            "slices": [],
            "one_at_a_time": [*TRUE, *NOISE],
        }
    )
    code = ablate(Ablation.open(plan), launch=lambda task: Inline(task, work), workers=1)
    assert code == 0
    found = {v["name"].removeprefix("without-"): v["metrics"] for v in results_of(folder / "out")["variants"]}
    return {name: metrics["auc"] for name, metrics in found.items() if metrics}


def is_right(found: dict[str, dict[str, Any]]) -> bool:
    """Whether all verdicts are those of the truth."""
    hurt = all(found[name]["verdict"] == "hurts" for name in TRUE)
    return hurt and all(found[name]["verdict"] == "no evidence" for name in NOISE)


def main() -> None:
    """Repeat, and say what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--first", type=int, default=1, help="seed of the first log")
    parser.add_argument("--users", type=int, default=USERS)
    arguments = parser.parse_args()
    right = 0
    for seed in range(arguments.first, arguments.first + arguments.repeats):
        folder, began = Path(tempfile.mkdtemp()), time.monotonic()
        found = verdicts(folder, seed=seed, users=arguments.users)
        shutil.rmtree(folder)
        right += is_right(found)
        told = "  ".join(f"{name} {j['delta']:+.4f} {j['verdict']}" for name, j in found.items())
        print(f"log {seed}: {told}  ({time.monotonic() - began:.0f} s)", file=sys.stderr, flush=True)
    print(f"right in {right} of {arguments.repeats}")


if __name__ == "__main__":
    main()
