"""What a run learned from, recorded or derived, through every run that it knows; when a part is unseen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from shutil import copytree

import pytest

from ctr.build import open_dataset
from ctr.config import dump_config
from ctr.runs.ensemble import EnsembleRecord, Member
from ctr.runs.learned import LEARNED, JudgedPart, LearnedFrom, learned_from, learned_until, unseen_warning
from features.dataset import Dataset, read_manifest
from features.errors import DataError
from tests.ctr.tiny_run import tiny_config, tiny_dataset

Span = tuple[int, int]


@pytest.fixture(scope="module")
def fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_dataset(tmp_path_factory.mktemp("learned"))


class Place:
    """A folder with data sets of one log, and runs that have begun."""

    def __init__(self, root: Path, files: Path) -> None:
        self.root, self.files = root, files

    def data(self, name: str, *spans: Span | None, log: str = "log") -> Path:
        """A data set whose train, valid and test parts have these first and last seconds."""
        manifest = read_manifest(self.files)
        splits = {
            split: info.model_copy(update={"time_range": span, "clock_range": span})
            for (split, info), span in zip(manifest.splits.items(), spans, strict=True)
        }
        changed = manifest.model_copy(update={"name": log, "splits": splits})
        copytree(self.files, self.root / name)
        (self.root / name / "manifest.json").write_text(changed.model_dump_json())
        return self.root / name

    def run(self, name: str, data: Path, *options: str, recorded: bool = True) -> Path:
        """What a training leaves when it has begun; of before the record without it."""
        config = tiny_config(data, self.root / name, *options)
        (self.root / name).mkdir()
        (self.root / name / "config.yaml").write_text(dump_config(config))
        if recorded:
            learned_from(config, open_dataset(config)).write(self.root / name)
        return self.root / name

    def ensemble(self, name: str, data: Path, runs: Sequence[Path]) -> Path:
        members = [Member(run=str(run), model="m", seed=1, step=1, trained_on="train") for run in runs]
        (self.root / name).mkdir()
        EnsembleRecord(
            dataset="log", digest=read_manifest(data).digest(), place=str(data), calibration="none",
            metric="auc", members=members,
        ).write(self.root / name)  # fmt: skip
        return self.root / name


@pytest.fixture
def place(tmp_path: Path, fixture: Path) -> Place:
    return Place(tmp_path, fixture)


EARLY: tuple[Span, ...] = ((0, 99), (100, 119), (120, 200))
LATE: tuple[Span, ...] = ((0, 150), (151, 180), (181, 200))


def reaches(run: Path, data: Path, split: str) -> bool:
    return learned_until(run).reaching(JudgedPart.of(Dataset(data, verify=False), split)) is not None


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("option", ["init.run={}", "lora.base={}", "train.distill.predictions={}"])
def test_what_a_run_knows_through_others_is_found_at_any_distance(
    place: Place, option: str, recorded: bool
) -> None:
    early, late = place.data("early", *EARLY), place.data("late", *LATE)
    first = place.run("first", late, recorded=recorded)
    second = place.run("second", early, option.format(first), recorded=recorded)
    third = place.run("third", early, f"init.run={second}", recorded=recorded)
    both = place.ensemble("both", early, [place.run("plain", early, recorded=recorded), third])
    fourth = place.run("fourth", early, f"train.distill.predictions={both}", recorded=recorded)
    for run in (first, second, third, both, fourth):
        assert [reaches(run, early, split) for split in ("valid", "test")] == [True, True]
        assert not reaches(run, late, "test")  # the newest of it was learned before
    assert not any(reaches(place.root / "plain", early, split) for split in ("valid", "test"))
    said = unseen_warning(
        "fourth", learned_until(fourth), JudgedPart.of(Dataset(early, verify=False), "test")
    )
    through = f"train.distill.predictions={both}, member={third}, init.run={second}, {option.format(first)}"
    assert said is not None and f"(through {through})" in said
    assert "up to 1970-01-01T00:02:30Z (150 s)" in said and "begins at 1970-01-01T00:02:00Z (120 s)" in said


def test_the_validation_part_is_seen_by_those_trained_on_it_and_the_test_part_is_not(place: Place) -> None:
    early = place.data("early", *EARLY)
    final = place.run("final", early, "train.data=train+valid")
    after = place.run("after", early, f"init.run={final}")
    for run in (final, after):
        assert reaches(run, early, "valid") and not reaches(run, early, "test")


def test_days_that_follow_each_other_are_unseen_by_the_run_of_the_day_before(place: Place) -> None:
    """As in `ctr roll`; the record does not grow with the days."""
    before: Path | None = None
    for day in range(6):
        first = 1000 * day
        data = place.data(f"day-{day}", (first, first + 899), None, (first + 900, first + 999))
        if before is not None:
            assert not any(reaches(before, data, split) for split in ("train", "valid", "test"))
        run = place.run(f"run-{day}", data, *(() if before is None else (f"init.run={before}",)))
        assert not reaches(run, data, "test")
        before = run
    assert before is not None and len(learned_until(before).rows) == 2


def test_parts_of_one_data_set_may_share_a_second_and_other_logs_tell_nothing(place: Place) -> None:
    data = place.data("data", (0, 100), (100, 100), (100, 200))
    other = place.data("other", (0, 300), (301, 302), (303, 400), log="another log")
    manifest = read_manifest(data)
    splits = {
        name: info.model_copy(update={"clock_range": (1000 * i, 1000 * i + 999)})
        for i, (name, info) in enumerate(manifest.splits.items())
    }
    (data / "manifest.json").write_text(manifest.model_copy(update={"splits": splits}).model_dump_json())
    run = place.run("run", data, f"init.run={place.run('there', other)}")
    assert not any(reaches(run, data, split) for split in ("valid", "test"))
    by_second = JudgedPart(frozenset({"log"}), read_manifest(data).digest(), None, 100)
    assert learned_until(run).reaching(by_second) is None
    again = place.data("again", (0, 99), (100, 150), (151, 200))  # of the same log, where 100 is a tick
    assert reaches(run, again, "valid")


def test_without_times_the_parts_tell(place: Place) -> None:
    data = place.data("data", None, None, None)
    assert not reaches(place.run("run", data), data, "valid")
    final = place.run("final", data, "train.data=train+valid")
    assert reaches(final, data, "valid") and not reaches(final, data, "test")


def test_what_is_not_known_is_said(place: Place, tmp_path: Path) -> None:
    early = place.data("early", *EARLY)
    gone = place.run("gone", place.data("moved", *EARLY), recorded=False)
    (tmp_path / "moved" / "manifest.json").unlink()
    windowed = place.run("windowed", early, "period.windows=2", "period.window=1", recorded=False)
    spec = place.run("spec", place.data("again", *EARLY), recorded=False)
    (spec / "spec.yaml").write_text("name: a")
    (tmp_path / "again" / "spec.yaml").write_text("name: b")
    for name, why in (
        (gone, "moved"), (windowed, "period.window 1"), (spec, "another spec"), (tmp_path / "x", "no run"),
    ):  # fmt: skip
        found = learned_until(place.run(f"after-{name.name}", early, f"init.run={name}"))
        assert len(found.rows) == 1 and why in found.unknown[0] and f"init.run={name}" in found.unknown[0]
    place.run("a", early, f"init.run={tmp_path / 'b'}", recorded=False)
    place.run("b", early, f"init.run={tmp_path / 'a'}", recorded=False)
    assert len(learned_until(tmp_path / "a").rows) == 2  # a circle ends


def test_a_record_is_read_as_it_was_written_and_a_damaged_one_is_refused(place: Place) -> None:
    run = place.run("run", place.data("early", *EARLY))
    found = learned_until(run)
    assert LearnedFrom.model_validate_json((run / LEARNED).read_bytes()) == found
    (run / LEARNED).write_text('{"format": 2, "dataset": null, "rows": []}')
    with pytest.raises(DataError, match=r"learned\.json must say what the run learned from"):
        learned_until(run)
