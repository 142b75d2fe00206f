"""The course of a sweep: train the first sizes, write the prediction down, only then train the largest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

from ctr.ablate.schedule import Job, Pool, TrainingFailed
from ctr.ablate.unseen import seen_facts
from ctr.runs.directory import RunDir
from ctr.runs.journal import read_rows
from ctr.scaling.measure import foreseen, measured
from ctr.scaling.measured import Measured
from ctr.scaling.predict import ROW, Prediction, Record, predict, record_key, recorded
from ctr.scaling.results import SweepResults, finding
from ctr.scaling.sweep import Chain
from ctr.tracking import Tracker


class SweepRunner:
    """Does a sweep, or what of it is missing.

    Args:
        chain: sizes and trainings.
        pool: does the trainings.
        run_dir: of the sweep; its journal holds the predictions.
        tracker: takes them.
        say: shows a line to people.
    """

    def __init__(
        self, chain: Chain, pool: Pool, *, run_dir: RunDir, tracker: Tracker, say: Callable[[str], None]
    ) -> None:
        self.chain, self.sweep = chain, chain.sweep
        self.pool = pool
        self.run_dir, self.tracker, self.say = run_dir, tracker, say
        self._point = cache(self._measure)

    def run(self) -> SweepResults | None:
        """Train, predict, train, score; None if a signal came.

        Raises:
            TrainingFailed: a training failed. What is finished stays.
        """
        if not self._train(self.chain.fitted):
            return None
        record = self._record()
        if not self._train(self.chain.held_out):
            return None
        return self._results(record)

    def _train(self, names: Sequence[str]) -> bool:
        whole = self.pool.run([Job(subrun) for subrun in self.chain.ablation.unfinished(names)])
        if whole and self.pool.failures:
            raise TrainingFailed("every size must train", self.pool.failures[0])
        return whole

    def _record(self) -> Record:
        """The predictions in the journal, or new ones, which are on the disk when this returns."""
        key = self._key()
        rows = read_rows(self.run_dir.journal_file)
        if record := recorded(rows, key):
            return record
        record = Record(key, not self._any_known(self.chain.held_out), self._predictions())
        self.tracker.log(ROW, sum(row["kind"] == ROW for row in rows), record.values())
        self.tracker.flush()
        for metric, own in record.predictions.items():
            for name, made in own.items():
                f = made.forecast
                self.say(f"predicted {metric} of {name}: {f.value:.4f} ({f.low:.4f} to {f.high:.4f})")
        return record

    def _key(self) -> str:
        def keys(names: Sequence[str]) -> list[str]:
            return [s.key for name in names for s in self.chain.trainings(name)]

        about = {
            "metrics": list(self.sweep.metrics),
            "against": self.sweep.against,
            "sizes": list(self.sweep.xs),
        }
        return record_key({"fitted": keys(self.chain.fitted), "held_out": keys(self.chain.held_out), **about})

    def _any_known(self, names: Sequence[str]) -> bool:
        """Whether a test result of these points is there already."""
        return any(s.predictions().is_file() for name in names for s in self.chain.trainings(name))

    def _predictions(self) -> dict[str, dict[str, Prediction]]:
        against, names = self.sweep.against, self.chain.held_out
        points = self._measured(self.chain.fitted)
        targets = [(self._place(name), len(self.sweep.seeds)) for name in names]
        return {
            metric: dict(zip(names, predict(points, metric, targets, against), strict=True))
            for metric in self.sweep.metrics
        }

    def _place(self, name: str) -> float:
        """Of a point that is not trained yet, on the axis of the fit."""
        if self.sweep.against == "x":
            return self.chain.size(name)
        return foreseen(self.chain.size(name), self.chain.trainings(name)[0]).at(self.sweep.against)

    def _measured(self, names: Sequence[str]) -> list[Measured]:
        return [self._point(name) for name in names]

    def _measure(self, name: str) -> Measured:
        return measured(
            self.chain.size(name), self.chain.trainings(name), self.sweep.metrics, task=self.sweep.task
        )

    def _results(self, record: Record) -> SweepResults:
        points = self._measured(self.chain.ablation.names)
        findings = [
            finding(points, metric, [own[name] for name in self.chain.held_out], self.sweep.against)
            for metric, own in record.predictions.items()
        ]
        return SweepResults(
            self.sweep.name,
            self.sweep.axis,
            self.sweep.against,
            points,
            len(self.chain.held_out),
            record.before,
            findings,
            facts(self.chain),
            [(v.name, v.changes) for v in self.chain.ablation.variants],
        )


def facts(chain: Chain) -> dict[str, str]:
    """The head of the report."""
    manifest, config = chain.ablation.dataset.manifest, chain.ablation.variants[0].config
    sweep = chain.sweep
    sizes = ", ".join(f"{x:g}" for x in sweep.xs)
    return {
        **seen_facts(chain.ablation.subruns),
        "base": f"{config.model.kind} on {manifest.name}",
        "data set": f"{manifest.splits['test'].impressions:,} test rows; sha256 {manifest.digest()[:16]}",
        "sizes": f"{sweep.axis} {sizes}; the last {sweep.hold_out} held out",
        "seeds": ", ".join(map(str, sweep.seeds)),
        **({} if sweep.task is None else {"task": sweep.task}),
        "trainings": str(len(chain.ablation.subruns)),
    }
