"""The training loop in one process: when it evaluates, saves and stops, and what it refuses to continue."""

from __future__ import annotations

import itertools
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ctr.build import open_dataset, training_loader
from ctr.checkpoint.checkpoint import load_latest, steps
from ctr.errors import CheckpointError, NonFiniteError
from ctr.runs.directory import RunDir
from ctr.runs.journal import read_rows
from ctr.tracking import Tracker
from ctr.training import trainer, validation
from ctr.training.step import Updates
from ctr.training.validation import UntilSignal, selection_value
from features.durable.faults import InjectedFault, injected
from features.errors import ConfigError
from pipelines import train as command
from pipelines.cli import main
from pipelines.train import train
from tests.ctr.tiny_run import STEPS_PER_EPOCH, endings, outcome_of, tiny_config, tiny_dataset, write_config


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_dataset(tmp_path_factory.mktemp("data"))


def rows(run: Path, kind: str) -> list[dict[str, Any]]:
    return [row for row in read_rows(run / "journal.jsonl") if row["kind"] == kind]


class Stopping:
    """A display that raises a signal behind a step, as a scheduler may at any moment."""

    def __init__(self, at: int, calls: list[str] | None = None) -> None:
        self.at = at
        self.calls = [] if calls is None else calls

    def step(self, *, step: int, rows: int, figures: dict[str, float]) -> None:
        if step == self.at:
            self.calls.append("signal")
            signal.raise_signal(signal.SIGTERM)

    def start(self, *, step: int, total: int) -> None: ...

    def message(self, text: str) -> None: ...

    def stop(self) -> None: ...


class Counting:
    """What a training does behind a signal, by the calls that it makes."""

    def __init__(self, patched: pytest.MonkeyPatch) -> None:
        self.display = Stopping(0)
        self.calls: list[str] = []
        for owner, name in (
            (Updates, "step"),
            (trainer, "save_checkpoint"),
            (validation, "figures_of"),
            (UntilSignal, "iterate"),
        ):
            self._watch(patched, owner, name)
        patched.setattr(command, "make_display", lambda: self.display)

    def _watch(self, patched: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def watched(*arguments: Any, **options: Any) -> Any:
            self.calls.append(name)
            return real(*arguments, **options)

        patched.setattr(owner, name, watched)


@pytest.mark.fault(3)
@pytest.mark.parametrize("at", [5, 6, 2 * STEPS_PER_EPOCH], ids=["between", "evaluation due", "last"])
def test_sigterm_saves_that_step_and_ends_143(
    at: int, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: Callable[..., None]
) -> None:
    """Behind the signal comes one save and no other work; the same command then ends like a whole run."""
    run, whole = tmp_path / "run", tmp_path / "whole"
    options = ("model.dropout=0.2", "train.keep_last=9")
    config = write_config(tmp_path / "run.yaml", dataset, run, *options)
    with monkeypatch.context() as patched:
        watch = Counting(patched)
        watch.display = Stopping(at, watch.calls)
        assert main(["train", str(config)]) == 143
    behind = watch.calls[watch.calls.index("signal") + 1 :]
    assert behind == ["save_checkpoint"]
    counted(signals=1, calls_behind_them=len(behind))
    assert steps(run / "checkpoints")[-1] == at and endings(run) == ["KILLED"]
    assert main(["train", str(config)]) == 0
    assert endings(run) == ["KILLED", "FINISHED"]
    train(tiny_config(dataset, whole, *options))
    ours, theirs = outcome_of(run), outcome_of(whole)
    assert set(ours.pop("steps")) == {at, *theirs.pop("steps")} and ours == theirs


@pytest.mark.fault(3)
def test_a_signal_in_an_evaluation_ends_it_and_the_next_start_makes_it(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the next start is stopped in it again."""
    run, whole = tmp_path / "run", tmp_path / "whole"
    options = ("train.early_stopping=3", "train.evaluate_every=4")
    config = write_config(tmp_path / "run.yaml", dataset, run, *options)
    real = validation.score_split

    def signalled(*arguments: Any, **rest: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return real(*arguments, **rest)

    for _ in range(2):
        with monkeypatch.context() as patched:
            patched.setattr(validation, "score_split", signalled)
            assert main(["train", str(config)]) == 143
        assert steps(run / "checkpoints") == [4] and not rows(run, "valid")
    assert main(["train", str(config)]) == 0
    train(tiny_config(dataset, whole, *options))
    assert outcome_of(run) == outcome_of(whole)


@pytest.mark.fault(3)
def test_who_sends_a_signal_waits_five_seconds_for_mlflow(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most, and nobody in the test: what the end of the session asks for is written down."""
    waits: list[float] = []
    monkeypatch.setattr(Tracker, "_await_replica", lambda self, timeout: waits.append(timeout) or True)
    monkeypatch.setattr(command, "make_display", lambda: Stopping(5))
    assert main(["train", str(write_config(tmp_path / "run.yaml", dataset, tmp_path / "run"))]) == 143
    monkeypatch.setattr(command, "make_display", lambda: Stopping(0))
    assert main(["train", str(tmp_path / "run.yaml")]) == 0
    assert waits == [5.0, 30.0]


@pytest.mark.fault(29)
def test_one_job_at_a_time(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    config = write_config(tmp_path / "run.yaml", dataset, run)
    with RunDir.open(run):
        assert main(["train", str(config)]) == 6
    assert "one job at a time" in capsys.readouterr().err
    assert not steps(run / "checkpoints")


@pytest.mark.fault(7)
def test_checkpoint_of_another_configuration_or_data_set_is_refused(dataset: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(tiny_config(dataset, run))
    before = {
        path: path.read_bytes()
        for path in run.rglob("*")
        if path.is_file() and not path.name.endswith("lock")
    }
    with pytest.raises(CheckpointError) as caught:
        train(tiny_config(dataset, run, "model.heads=3", "optimizer.lr=0.5", "model.pools=own"))
    lines = str(caught.value).splitlines()
    assert lines[1:4] == [
        "config.model.heads: expected 3, found 2",
        "config.model.pools: expected 'own', found 'all'",
        "config.optimizer.lr: expected 0.5, found 0.01",
    ]
    (tmp_path / "other").mkdir()
    other = tiny_dataset(tmp_path / "other")
    manifest = other / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"name":"fixture"', '"name":"other"'))
    with pytest.raises(CheckpointError, match=r"dataset: expected '[0-9a-f]{64}', found '[0-9a-f]{64}'"):
        train(tiny_config(other, run))
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.fault(8)
def test_what_does_not_decide_the_course_may_change(dataset: Path, tmp_path: Path) -> None:
    """Threads, paths, tracking and the number of kept checkpoints: a run may go on with others."""
    run, whole = tmp_path / "run", tmp_path / "whole"
    with injected("step:8:raise"), pytest.raises(InjectedFault):
        train(tiny_config(dataset, run))
    train(tiny_config(dataset, run, "loader.workers=3", "loader.prefetch=1", "train.keep_last=1"))
    train(tiny_config(dataset, whole))
    assert outcome_of(run)["hashes"] == outcome_of(whole)["hashes"]


def test_a_finished_run_stays_as_it_is(dataset: Path, tmp_path: Path) -> None:
    config = tiny_config(dataset, tmp_path / "run")
    first = train(config)
    before = outcome_of(tmp_path / "run")
    assert train(config) == first
    assert outcome_of(tmp_path / "run") == before


def test_evaluations_and_checkpoints_come_when_they_are_due(dataset: Path, tmp_path: Path) -> None:
    run, total = tmp_path / "run", 2 * STEPS_PER_EPOCH
    train(
        tiny_config(dataset, run, "train.evaluate_every=5", "train.checkpoint_every=3", "train.keep_last=20")
    )
    assert [row["step"] for row in rows(run, "valid")] == [5, 10, total]
    assert steps(run / "checkpoints") == [3, 5, 6, 9, 10, total]
    assert [row["step"] for row in rows(run, "train")] == list(range(2, total + 1, 2))


def test_the_best_checkpoint_is_kept_with_the_newest(dataset: Path, tmp_path: Path) -> None:
    """With a rate so high that it only gets worse, the first evaluation stays the best."""
    run = tmp_path / "run"
    outcome = train(
        tiny_config(
            dataset, run, "train.evaluate_every=2", "train.keep_last=1", "train.epochs=3", "train.metric=ne"
        )
    )
    values = {row["step"]: row["ne"] for row in rows(run, "valid")}
    best = min(values, key=lambda step: (values[step], step))
    assert outcome.best_step == best < outcome.steps and outcome.best_value == -values[best]
    assert steps(run / "checkpoints") == [best, outcome.steps]
    assert rows(run, "best")[-1]["step"] == best


def test_early_stopping_waits_its_patience(dataset: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = ("train.evaluate_every=2", "train.epochs=20", "train.metric=ne", "optimizer.lr=0.1")
    outcome = train(tiny_config(dataset, run, *options, "train.early_stopping=3"))
    assert outcome.best_step is not None and outcome.steps == outcome.best_step + 3 * 2 < 20 * STEPS_PER_EPOCH
    assert steps(run / "checkpoints")[-1] == outcome.steps
    assert train(tiny_config(dataset, run, *options, "train.early_stopping=3")) == outcome


def test_max_steps_ends_inside_an_epoch_with_an_evaluation(dataset: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train(tiny_config(dataset, run, "train.max_steps=5")).steps == 5
    assert [row["step"] for row in rows(run, "valid")] == [5]
    assert rows(run, "train")[-1]["lr"] < 0.01  # the schedule ends there too


@pytest.mark.fault(17)
def test_a_step_that_is_not_finite_ends_with_code_4_and_keeps_the_last_checkpoint(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    config = write_config(tmp_path / "run.yaml", dataset, run, "train.checkpoint_every=3")
    with injected("loss:7:nan"):
        assert main(["train", str(config)]) == NonFiniteError.exit_code == 4
        assert "of step 7 is not. Rows [" in capsys.readouterr().err
        assert steps(run / "checkpoints")[-1] == 6 and endings(run) == ["FAILED"]
        assert main(["train", str(config)]) == 4  # the same fault at the same step again
    assert main(["train", str(config)]) == 0


@pytest.mark.fault(17)
def test_the_cap_of_skipped_steps_holds_across_a_restart(dataset: Path, tmp_path: Path) -> None:
    options = ("train.non_finite=skip", "train.max_skipped=3", "train.checkpoint_every=1")
    bad = ",".join(f"loss:{step}:nan" for step in range(4, 12))
    with injected(f"{bad},step:6:raise"), pytest.raises(InjectedFault):
        train(tiny_config(dataset, tmp_path / "run", *options))
    with injected(bad), pytest.raises(NonFiniteError, match="of step 7 "):
        train(tiny_config(dataset, tmp_path / "run", *options))
    last = rows(tmp_path / "run", "train")[-1]
    assert last["step"] == 6 and last["skipped"] == 2 and "loss" not in last and last["lr"] > 0


def test_training_goes_on_without_a_validation_split(dataset: Path, tmp_path: Path) -> None:
    """The last weights stand for the best ones."""
    empty = tiny_dataset(tmp_path)
    manifest = empty / "manifest.json"
    text = manifest.read_text()
    start = text.index('"valid":{')
    counts = text[start : text.index("}", start)]
    manifest.write_text(
        text.replace(
            counts, '"valid":{"requests":0,"impressions":0,"positives":0,"time_range":null,"clock_range":null'
        )
    )
    outcome = train(tiny_config(empty, tmp_path / "run"))
    assert outcome.best_step is None and steps(tmp_path / "run" / "checkpoints") == [outcome.steps]


def test_averaged_weights_are_saved_beside_the_models_own(dataset: Path, tmp_path: Path) -> None:
    train(tiny_config(dataset, tmp_path / "run", "optimizer.ema_decay=0.9"))
    checkpoint = load_latest(tmp_path / "run" / "checkpoints")
    assert checkpoint is not None and checkpoint.state["averaged_updates"] == checkpoint.step
    parts = {part: {} for part in ("model", "average")}
    for name, tensor in checkpoint.tensors.items():
        part, _, rest = name.partition("/")
        if part in parts:
            parts[part][rest] = tensor
    assert parts["average"] and parts["average"].keys() <= parts["model"].keys()
    assert any(not torch.equal(t, parts["model"][name]) for name, t in parts["average"].items())


@pytest.mark.fault(27, 28)
def test_a_server_that_never_answers_changes_nothing_of_a_run(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ctr.tracking.replica.PROBE_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        train(tiny_config(dataset, tmp_path / "silent", f"tracking.uri={uri}"))
    train(tiny_config(dataset, tmp_path / "none"))
    assert outcome_of(tmp_path / "silent") == outcome_of(tmp_path / "none")
    assert endings(tmp_path / "silent") == ["FINISHED"]


@pytest.mark.fault(36)
def test_a_clock_that_runs_back_changes_nothing_of_a_run(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour earlier at every look: durations and speeds come from a clock that only rises."""
    looks = itertools.count()
    with monkeypatch.context() as patched:
        patched.setattr(time, "time", lambda: 1_800_000_000.0 - 3600 * next(looks))
        train(tiny_config(dataset, tmp_path / "back", "tracking.system_every=0.01"))
    train(tiny_config(dataset, tmp_path / "forth"))
    assert outcome_of(tmp_path / "back") == outcome_of(tmp_path / "forth")
    walls = [row["wall"] for row in read_rows(tmp_path / "back" / "journal.jsonl")]
    assert walls[0]["time"] > walls[-1]["time"] and next(looks) > 3
    spans = [value for wall in walls for name, value in wall.items() if name in ("seconds", "rows_per_s")]
    assert len(spans) > 5 and min(spans) > 0


@pytest.mark.fault(30)
def test_a_read_error_of_a_loader_thread_is_retryable_and_names_thread_and_files(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path / "run.yaml", dataset, tmp_path / "run")
    with injected("loader.batch:3:enospc"):
        assert main(["train", str(config)]) == 75
    text = capsys.readouterr().err
    assert "No space left on device" in text
    assert f"in thread loader-0, making batch 3 of epoch 0 from {dataset / 'train'}" in text
    assert endings(tmp_path / "run") == ["FAILED"]


def test_what_selects_the_best_step() -> None:
    figures = {"auc": 0.75, "gauc": 0.7, "query_auc": None, "ne": 0.9}
    assert selection_value(figures, "auc") == 0.75
    assert selection_value(figures, "auc+gauc") == pytest.approx(0.725)
    assert selection_value(figures, "ne") == -0.9
    assert selection_value(figures, "query_auc") is None
    assert selection_value(figures, "auc+query_auc") is None


def test_early_stopping_without_a_validation_part_is_refused(dataset: Path, tmp_path: Path) -> None:
    """Before the run directory is made; it would train to the end without a word."""
    options = ("train.data=train+valid", "train.early_stopping=2")
    with pytest.raises(
        ConfigError, match=r"must be 0 .* \(train\.data is train\+valid\), got 2; set it to 0"
    ):
        train(tiny_config(dataset, tmp_path / "both", *options))
    assert not (tmp_path / "both").exists()


def test_the_final_fit_uses_all_but_the_test_part(dataset: Path, tmp_path: Path) -> None:
    both = tiny_config(dataset, tmp_path / "both", "train.data=train+valid")
    alone = tiny_config(dataset, tmp_path / "alone")
    counts = open_dataset(both).manifest.splits
    batches = list(training_loader(both, open_dataset(both)).iterate(0))
    wanted = counts["train"].impressions + counts["valid"].impressions
    assert sum(batch.num_rows for batch in batches) == wanted
    assert sum(b.num_rows for b in training_loader(alone, open_dataset(alone)).iterate(0)) < wanted
    outcome = train(both)
    assert outcome.best_step is None and not rows(tmp_path / "both", "valid")
    assert load_latest(RunDir(tmp_path / "both").checkpoints) is not None


def test_only_known_tables_are_drawn_anew(tmp_path: Path) -> None:
    config = tiny_config(tiny_dataset(tmp_path), tmp_path / "run", "embedding.restart=[movie]")
    wanted = r"embedding.restart must be auto or name tables .*'item'.* got \['movie'\]"
    with pytest.raises(ConfigError, match=wanted):
        train(config)
