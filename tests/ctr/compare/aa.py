"""False-positive rates of the whole procedure on simulated predictions of models that do not differ.

    OMP_NUM_THREADS=1 .venv/bin/python -m tests.ctr.compare.aa 1000

prints, for each world, how often at least one of its variants gets a verdict (docs/comparing.md).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ctr.compare import Cell, judge, paired_sums
from ctr.compare.combine import Noise, Windows, units_of
from ctr.compare.units import Units

METRICS: tuple[str, ...] = ("auc", "gauc", "log_loss")


@dataclass(frozen=True)
class World:
    """Test users and how trainings differ; all noise is in log-odds.

    Args:
        users, rows: test users, and rows of a user with average activity (activity is log-normal).
        variants, seeds, windows: models beside the base, and their trainings.
        per_user, per_row: noise of one training on a user and on a row.
        quality: spread of log(per_row) between trainings, which makes some better than others.
        drift: how much a model's trainings differ in quality between windows, then judged as random.
        taste: how much a model, in all its trainings, serves some users better than others.
        harm: further noise on rows of the first variant; 0 is an A/A world.
    """

    users: int = 120
    rows: int = 8
    variants: int = 2
    seeds: int = 3
    windows: int = 1
    per_user: float = 0.3
    per_row: float = 0.3
    quality: float = 0.5
    drift: float = 0.0
    taste: float = 0.0
    harm: float = 0.0


WORLDS = {
    "one seed, trainings of one quality": World(seeds=1, quality=0.0),
    "one seed, noise of training": World(seeds=1),
    "three seeds, noise of training": World(),
    "three seeds, very unequal trainings": World(per_user=0.0, quality=1.5),
    "three seeds, little noise of training, tastes": World(
        quality=0.0, per_user=0.05, per_row=0.1, taste=0.4
    ),
    "three seeds, noise of training and tastes": World(taste=0.4),
    "two seeds, noise of training and tastes": World(seeds=2, taste=0.4),
    "five seeds, four variants": World(seeds=5, variants=4),
    "two windows of three seeds": World(windows=2, users=80),
    "four windows of two seeds, drift": World(windows=4, seeds=2, users=80, drift=0.5),
}


def cells_of(world: World, rng: np.random.Generator, *, draws: int = 200) -> dict[str, list[Cell]]:
    """One experiment: every model trained with every seed for every window, on the users of that window."""
    names = ["base", *(f"v{k}" for k in range(world.variants))]
    cells: dict[str, list[Cell]] = {name: [] for name in names[1:]}
    tastes = world.taste * rng.normal(size=(len(names), world.users))
    for window in range(world.windows):
        activity = rng.lognormal(0.0, 0.7, world.users)
        user = np.repeat(np.arange(world.users), rng.poisson(world.rows * activity))
        truth = 0.7 * rng.normal(size=world.users)[user] + rng.normal(size=len(user)) - 1.0
        label = rng.random(len(user)) < _sigmoid(truth)
        drift = np.exp(world.drift * rng.normal(size=len(names)))
        for seed in range(world.seeds):
            scores = [_score(world, truth, user, tastes[m], drift[m], rng) for m in range(len(names))]
            if world.harm:
                scores[1] = _sigmoid(
                    np.log(scores[1] / (1 - scores[1])) + world.harm * rng.normal(size=len(user))
                )
            variants = dict(zip(names[1:], scores[1:], strict=True))
            pairs = paired_sums(label, scores[0], variants, user=user, draws=draws)
            for name, pair in pairs.items():
                cells[name].append(Cell(pair=pair, seed=seed, window=str(window)))
    return cells


def _score(
    world: World,
    truth: np.ndarray,
    user: np.ndarray,
    taste: np.ndarray,
    drift: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Predictions of one training: the truth, the model's taste and the training's noise."""
    of_users = world.per_user * rng.normal(size=world.users) + taste
    of_rows = world.per_row * drift * np.exp(world.quality * rng.normal()) * rng.normal(size=len(user))
    return _sigmoid(truth + of_users[user] + of_rows)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def false_positives(
    world: World, repeats: int, *, seed: int = 0, noises: Sequence[Noise] = ("own",)
) -> dict[Noise, dict[str, float]]:
    """Share of experiments in which any variant gets a verdict, for each metric."""
    rng = np.random.default_rng(seed)
    found: dict[Noise, dict[str, int]] = {noise: dict.fromkeys(METRICS, 0) for noise in noises}
    for _ in range(repeats):
        cells = cells_of(world, rng)
        for noise in noises:
            windows: Windows = "random" if world.drift else "fixed"
            judged = judge(cells, metrics=METRICS, noise=noise, windows=windows)
            for metric in METRICS:
                found[noise][metric] += any(j.metric == metric and j.verdict != "no evidence" for j in judged)
    return {noise: {m: count / repeats for m, count in each.items()} for noise, each in found.items()}


def naive_rates(world: World, repeats: int, *, seed: int = 0) -> Mapping[str, float]:
    """The same for three common ways, on the AUC of one variant."""
    rng = np.random.default_rng(seed)
    found = {"DeLong, first seed": 0, "users alone": 0, "percentiles of seeds and users": 0}
    for _ in range(repeats):
        cells = cells_of(replace(world, variants=1), rng, draws=500)["v0"]
        delong = cells[0].pair.delong
        assert delong is not None
        found["DeLong, first seed"] += abs(delong.auc[1] - delong.auc[0]) > 1.96 * delong.se
        units = _units(cells)
        found["users alone"] += abs(units.delta.mean()) > 1.96 * units.drawn.mean(axis=1).std()
        picked = rng.integers(0, len(cells), (len(units.drawn), len(cells)))
        drawn = np.take_along_axis(units.drawn, picked, axis=1).mean(axis=1)
        low, high = np.quantile(drawn, [0.025, 0.975])
        found["percentiles of seeds and users"] += not low <= 0.0 <= high
    return {way: count / repeats for way, count in found.items()}


def _units(cells: list[Cell]) -> Units:
    return units_of({"v0": cells})["auc"]["v0"]


def main(repeats: int) -> None:
    """Print the table."""
    for name, world in WORLDS.items():
        noises: tuple[Noise, ...] = ("own", "pooled") if world.seeds > 1 else ("own",)
        for noise, found in false_positives(world, repeats, noises=noises).items():
            shown = "  ".join(f"{metric} {100 * rate:.1f} %" for metric, rate in found.items())
            print(f"{name:48} {noise:7} {shown}", flush=True)
        if world.windows == 1:
            shown = "  ".join(
                f"{way} {100 * rate:.1f} %" for way, rate in naive_rates(world, repeats).items()
            )
            print(f"{'':48} naive   {shown}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
