"""The steps of `ctr roll`, day by day: each is done once, and a killed one is done again."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from ctr.compare import Cell, compare_files, judge
from ctr.config import RunConfig
from ctr.errors import RetryableError
from ctr.roll.plan import RollPlan
from ctr.roll.predictions import day_facts, join_parts, with_scores_of
from ctr.roll.results import FROZEN, ROLLED, SCRATCH, Day, figures_of, read_figures
from ctr.roll.steps import PlainResult, StepLog
from ctr.runs.directory import RunDir
from ctr.tracking import sync
from ctr.tracking.address import tracking_uri
from ctr.tracking.registry import promote
from features.dataset import SPLITS, Dataset
from features.errors import ConfigError
from features.lineage.together import together
from features.prepare import prepare
from features.spec import Spec, Split, load_spec
from pipelines.evaluate import evaluate
from pipelines.predict import predict
from pipelines.prepare import report, with_source
from pipelines.runs import open_run
from pipelines.terminal import echo
from pipelines.trainings import train_to_the_end


@dataclass
class Rolling:
    """The steps of the days, in order.

    Attributes:
        plan: what is asked for.
    """

    plan: RollPlan

    def __post_init__(self) -> None:
        self.root, self.steps = self.plan.directory, StepLog(self.plan.directory / "steps")
        self.asked_uri = self.plan.tracking_uri()
        self.uri = tracking_uri(self.root, self.asked_uri)
        self.spec = load_spec(self.plan.spec)
        self.unsent: list[RetryableError] = []

    def data(self, name: str) -> Path:
        return self.root / "data" / name

    def run(self, name: str) -> Path:
        return self.root / "days" / name

    def config(self, name: str, start: str | None) -> RunConfig:
        """The training of a day, or of a model from scratch."""
        begin = None if start is None else self.run(start)
        return self.plan.run_config(run=self.run(name), dataset=self.data(name), start=begin)

    def all_days(self) -> list[Day]:
        """Do what is missing of every day."""
        found: list[Day] = []
        logs = self.plan.days()
        for number, log in enumerate(logs):
            champion = found[-1].decision["champion"] if found else None
            last = number == len(logs) - 1
            wanted = self.plan.scratch is True or (self.plan.scratch == "last" and last)
            found.append(self._day(log, logs[: number + 1], found, champion, scratch=wanted and number > 0))
        return found

    def _day(
        self, log: Path, logs: list[Path], before: list[Day], champion: str | None, *, scratch: bool
    ) -> Day:
        name, parent = log.name, before[-1].name if before else None
        echo(f"{name}: preparing", err=True)
        prepared = self.steps.do(
            f"{name}.prepare", self._about(name, parent), partial(self._prepare, log, parent)
        )
        tested: PlainResult = {"facts": {}, "files": {}, "figures": {}}
        if champion is not None:
            assert parent is not None
            models = {ROLLED: champion, FROZEN: before[0].name}
            tested = self.steps.do(
                f"{name}.test", [prepared, models], partial(self._test, name, parent, models)
            )
            if scratch:
                made = self.steps.do(
                    f"{name}.scratch", [tested, self._asked()], partial(self._scratch, name, logs)
                )
                tested = {kind: {**tested[kind], **made.get(kind, {})} for kind in tested}
        trained = self.steps.do(
            f"{name}.train", [prepared, champion, self._asked()], partial(self._train, name, champion)
        )
        judged: PlainResult = {"judgement": None}
        if champion is not None:
            rule = self.plan.promotion.model_dump()
            judged = self.steps.do(
                f"{name}.compare", [trained, champion, rule], partial(self._compare, name, champion)
            )
        decision = self.steps.do(
            f"{name}.decide", [judged, champion], partial(self._decide, name, champion, judged)
        )
        self._publish(decision, name)
        files = {model: self.root / file for model, file in tested["files"].items()}
        figures = read_figures(tested["figures"])
        return Day(name, tested["facts"], files, figures, judged["judgement"], decision)

    def _asked(self) -> Any:
        """What decides a training, but for the data."""
        return self.plan.model_dump(mode="json", include={"base", "set", "first", "optimizer", "split"})

    def _about(self, name: str, parent: str | None) -> Any:
        return [self._spec(self.spec).digest(), None if parent is None else self._digest(parent)]

    def _spec(self, spec: Spec, **split: Any) -> Spec:
        own = Split(**(split or self.plan.split.model_dump()))
        return spec.model_copy(update={"split": own})

    def _digest(self, name: str) -> str:
        return Dataset(self.data(name), verify=False).manifest.digest()

    def _prepare(self, log: Path, parent: str | None) -> PlainResult:
        out, spec = self.data(log.name), self._spec(with_source(self.spec, str(log)))
        if not out.exists():  # else it was finished just before a kill
            after = None if parent is None else self.data(parent)
            prepare(spec, out, base=Path(), progress=report, after=after, keep_state=True)
        manifest = Dataset(out).manifest
        ancestors = [] if manifest.lineage is None else manifest.lineage.ancestors
        wanted = [] if parent is None else [self._digest(parent)]
        if manifest.spec_sha256 != spec.digest() or ancestors[-1:] != wanted:
            raise ConfigError(
                f"{out} must be the data set of {log} that goes on from {parent or 'nothing'}, but is "
                "another; delete it, or choose another out"
            )
        return {"sha256": manifest.digest()}

    def _test(self, name: str, parent: str, models: dict[str, str]) -> PlainResult:
        """The champion and the frozen model on the whole day."""
        folder, files = self.root / "predictions" / name, {}
        made: dict[str, Path] = {}
        for model, run in models.items():
            if run not in made:
                made[run] = folder / f"{model}.parquet"
                join_parts(self._predict(run, name, SPLITS), made[run])
            files[model] = str(made[run].relative_to(self.root))
        manifest = Dataset(self.data(parent), verify=False).manifest
        facts = day_facts(self.root / files[ROLLED], users=manifest.users, items=manifest.items)
        return {"facts": facts, "files": files, "figures": self._figures(files)}

    def _scratch(self, name: str, logs: list[Path]) -> PlainResult:
        """A model from scratch on all days before, on the same rows."""
        echo(f"{name}: a model from scratch on {len(logs) - 1} days", err=True)
        own, out = f"{name}-scratch", self.data(f"{name}-scratch")
        if not out.exists():
            spec = together(self.spec, logs, self.root / "logs" / own)
            first = self._first_second(name)
            split = {"valid": self.plan.split.valid, "test": datetime.fromtimestamp(first, UTC).isoformat()}
            prepare(self._spec(spec, **split), out, base=Path(), progress=report)
        self._fit(self.config(own, None))
        evaluate(self.run(own))
        target = self.root / "predictions" / name / "scratch.parquet"
        day = self.root / "predictions" / name / "rolled.parquet"
        with_scores_of(day, self.run(own) / "predictions" / "test.parquet", target)
        files = {SCRATCH: str(target.relative_to(self.root))}
        return {"files": files, "figures": self._figures(files)}

    def _first_second(self, name: str) -> int:
        splits = Dataset(self.data(name), verify=False).manifest.splits.values()
        return min(split.time_range[0] for split in splits if split.time_range is not None)

    def _train(self, name: str, champion: str | None) -> PlainResult:
        echo(f"{name}: training", err=True)
        config = self.config(name, champion)
        self._fit(config)
        found = evaluate(self.run(name))
        metrics = found.evaluation.overall.metrics
        return {"step": found.step, **{n: metrics[n].value for n in ("auc", "ne", "calibration")}}

    def _fit(self, config: RunConfig) -> None:
        RunDir.claim(Path(config.run))
        train_to_the_end(config)

    def _compare(self, name: str, champion: str) -> PlainResult:
        """The day's model beside the champion, on the day's test part."""
        (base,) = self._predict(champion, name, ("test",))
        pair = compare_files(base, {name: self.run(name) / "predictions" / "test.parquet"})[name]
        rule = self.plan.promotion
        found = judge({name: [Cell(pair=pair)]}, metrics=[rule.metric], alpha=rule.alpha)
        return {"judgement": asdict(found[0])}

    def _decide(self, name: str, champion: str | None, judged: PlainResult) -> PlainResult:
        if champion is None:
            return {"promoted": True, "champion": name, "why": "the first day"}
        verdict = judged["judgement"]["verdict"]
        promoted = self.plan.promotion.promotes(verdict)
        why = {"helps": "better", "hurts": "worse"}.get(verdict, "no evidence of a difference")
        return {"promoted": promoted, "champion": name if promoted else champion, "why": why}

    def _predict(self, run: str, day: str, splits: tuple[str, ...]) -> list[Path]:
        """A model's predictions of some parts of a day; parts without rows are left out."""
        with RunDir.open_results(self.run(run)) as run_dir:
            opened = open_run(run_dir, dataset=self.data(day))
            there = [s for s in splits if opened.dataset.manifest.splits[s].impressions]
            return [predict(run_dir, opened, split)[0] for split in there]

    def _figures(self, files: dict[str, str]) -> PlainResult:
        found = {file: figures_of(self.root / file) for file in dict.fromkeys(files.values())}
        return {model: found[file] for model, file in files.items()}

    def _publish(self, decision: PlainResult, name: str) -> None:
        """The day's run in MLflow, and the alias with the champion."""
        if self.uri is None:
            return
        try:
            self.steps.do(f"{name}.publish", decision, partial(self._send_and_promote, decision, name))
        except RetryableError as error:  # the days go on; the next call sends what is missing
            self.unsent.append(error)

    def _send_and_promote(self, decision: PlainResult, name: str) -> PlainResult:
        self.send(name, {"roll": self.plan.name})
        version = None
        if decision["promoted"]:
            assert self.uri is not None
            model = self.plan.registered_model or self.plan.name
            version = promote(self.run(name), self.uri, name=model, alias=self.plan.alias)
        return {"version": version}

    def send(self, name: str, tags: dict[str, str]) -> None:
        """A day's run to MLflow, where it goes on; again changes nothing."""
        experiment = self.config(name, None).tracking.experiment
        sync(self.run(name), self.uri, experiment=experiment, tags=tags)
