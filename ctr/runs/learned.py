"""Up to when a run has learned, by itself and through every run that it learned from.

    init.run, lora.base            the weights of another run
    train.distill.predictions      its logits, or those of the members of an ensemble

Whatever is judged after that time is unseen by the run; what lies before may not be. A training writes
`learned.json` when it begins, so that nothing else has to be there later. Of a run of before that file, its
configuration and its data set tell, and what they do not is named as unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

from ctr.runs.ensemble import is_ensemble, read_ensemble
from ctr.runs.record import read_record
from features.dataset import Dataset, read_manifest
from features.durable import replace_file
from features.errors import CtrError, DataError
from features.read.moment import SECOND, shown_moment
from features.remote.working_copy import here

if TYPE_CHECKING:
    from ctr.config import RunConfig

LEARNED = "learned.json"


class LearnedRows(BaseModel):
    """Rows of one data set that were learned from.

    Args:
        through: the options that lead to the run that did; empty: the run itself.
        dataset, digest: name of the data set and SHA-256 of its manifest.
        parts: `train.data`.
        time, clock: of the last of the rows: seconds, and what orders them; None where that is not known.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    through: str = ""
    dataset: str
    digest: str
    parts: str
    time: int | None
    clock: int | None


class LearnedFrom(BaseModel):
    """What a run has learned from.

    Args:
        dataset: the name of its own data set; None where that is not known.
        rows: its own rows first, then the newest of each data set that it knows through others.
        unknown: what of it is not known, and why.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    dataset: str | None
    rows: list[LearnedRows]
    unknown: list[str] = []

    def write(self, directory: Path) -> None:
        """Put it into the directory of the run or ensemble."""
        replace_file(directory / LEARNED, self.model_dump_json(indent=2).encode() + b"\n")

    def reaching(self, part: JudgedPart, *, others: bool = False) -> LearnedRows | None:
        """The newest rows that lie in a part or after it begins; None where all are older.

        Args:
            part: is judged.
            others: only of rows that are known through other runs.
        """
        found = [rows for rows in self.rows if part.is_reached(rows) and (rows.through or not others)]
        return max(found, key=_age, default=None)


@dataclass(frozen=True)
class JudgedPart:
    """Rows by which a run is judged.

    Args:
        names: of the data sets whose times are of the same log.
        digest: of the manifest of the data set.
        split: its part; None where that is not known.
        time, clock: of the first row: seconds, and what orders them; None where that is not known.
    """

    names: frozenset[str]
    digest: str | None
    split: str | None
    time: int | None
    clock: int | None = None

    @classmethod
    def of(cls, dataset: Dataset, split: str) -> JudgedPart:
        """A part of a data set as a run sees it."""
        info = dataset.manifest.splits[split]
        first = [None if span is None else span[0] for span in (info.time_range, info.clock_range)]
        digest = read_manifest(dataset.root).digest()
        return cls(frozenset({dataset.manifest.name}), digest, split, first[0], first[1])

    def is_reached(self, rows: LearnedRows) -> bool:
        """Whether some of the rows lie in this part or after it begins."""
        if rows.dataset not in self.names:
            return False
        same = rows.digest == self.digest
        if same and self.split in rows.parts.split("+"):
            return True
        if same and self.clock is not None and rows.clock is not None:
            return rows.clock >= self.clock
        if self.time is None or rows.time is None:
            return False
        # Parts of one data set never share a clock, but may share a second.
        return rows.time > self.time if same else rows.time >= self.time


def learned_from(config: RunConfig, dataset: Dataset) -> LearnedFrom:
    """What a run that begins will have learned from.

    Args:
        config: its configuration.
        dataset: as it sees it.
    """
    own = _own(config, dataset)
    return _together(own.dataset, [own], _origins(config), frozenset())


def learned_until(run: Path, *, _seen: frozenset[Path] = frozenset()) -> LearnedFrom:
    """What a finished run, or an ensemble, has learned from.

    Args:
        run: its directory.

    Raises:
        DataError: `learned.json` is damaged, or of another version.
    """
    path = here(run)
    if (path / LEARNED).is_file():
        return _read(path / LEARNED)
    seen = _seen | {path.resolve()}
    if is_ensemble(path):
        made = read_ensemble(path)
        members = [("member", member.run) for member in made.members]
        return _together(made.dataset, [], members, seen)
    return _derived(path, seen)


def learned_of_members(dataset: str, runs: Sequence[Path]) -> LearnedFrom:
    """What an ensemble of these runs has learned from; `dataset`: the name of what they score."""
    return _together(dataset, [], [("member", str(run)) for run in runs], frozenset())


def unseen_warning(
    run: str | Path, learned: LearnedFrom, part: JudgedPart, *, others: bool = False
) -> str | None:
    """Why figures of a run on a part are not of unseen rows; None where they are."""
    rows = learned.reaching(part, others=others)
    if rows is None:
        return None
    until = "of it" if rows.time is None else f"up to {_shown(rows.time)}"
    through = f" (through {rows.through})" if rows.through else ""
    begin = "" if part.time is None else f"; this part begins at {_shown(part.time)}"
    return f"{run} learned from rows {until}{through}{begin}: its figures are not of unseen rows"


def _own(config: RunConfig, dataset: Dataset) -> LearnedRows:
    """The rows of its own data set."""
    infos = [dataset.manifest.splits[part] for part in config.train.data.split("+")]
    times = [info.time_range[1] for info in infos if info.time_range is not None]
    clocks = [info.clock_range[1] for info in infos if info.clock_range is not None]
    return LearnedRows(
        dataset=dataset.manifest.name,
        digest=read_manifest(dataset.root).digest(),
        parts=config.train.data,
        time=max(times, default=None),
        clock=max(clocks, default=None),
    )


def _origins(config: RunConfig) -> Iterator[tuple[str, str]]:
    """Options that name runs to learn from, with what they name."""
    if config.init is not None:
        yield "init.run", config.init.run
    if config.lora is not None and config.lora.base is not None:
        yield "lora.base", config.lora.base
    distill = config.train.distill
    if distill is not None and distill.weight:
        named = [distill.predictions] if isinstance(distill.predictions, str) else distill.predictions
        yield from (("train.distill.predictions", name) for name in named)


def _together(
    dataset: str | None, own: list[LearnedRows], origins: Iterable[tuple[str, str]], seen: frozenset[Path]
) -> LearnedFrom:
    """Own rows, and the newest of each data set that is known through others."""
    newest: dict[str, LearnedRows] = {}
    unknown: list[str] = []
    for option, name in origins:
        step = f"{option}={name}"
        try:
            path = run_of(here(name))
            if path.resolve() in seen:
                continue
            found = learned_until(path, _seen=seen)
        except (CtrError, OSError) as error:
            unknown.append(f"{step}: {error}")
            continue
        unknown += [f"{step}, {why}" for why in found.unknown]
        for rows in found.rows:
            through = f"{step}, {rows.through}" if rows.through else step
            known = rows.model_copy(update={"through": through})
            newest[rows.dataset] = max(newest.get(rows.dataset, known), known, key=_age)
    return LearnedFrom(dataset=dataset, rows=[*own, *newest.values()], unknown=unknown)


def run_of(path: Path) -> Path:
    """The run, or ensemble, that a directory is or that a file of predictions lies in."""
    if path.is_dir():
        return path
    return next((p.parent for p in path.parents if p.name == "predictions"), path)


def _derived(path: Path, seen: frozenset[Path]) -> LearnedFrom:
    """What the configuration and the data set of a run of before `learned.json` tell."""
    from ctr.runs.saved_config import load_saved_config  # loads torch, which the file does not need

    if not (path / "config.yaml").is_file():
        return LearnedFrom(dataset=None, rows=[], unknown=[f"{path} holds no run that could tell"])
    try:
        config = load_saved_config(path / "config.yaml")
        dataset = Dataset(config.dataset, verify=False)
        _check_as_trained(path, dataset)
    except (CtrError, OSError) as error:
        return LearnedFrom(dataset=None, rows=[], unknown=[f"what {path} learned from: {error}"])
    if config.period.window:
        why = f"what {path} learned from: it was trained in period.window {config.period.window}"
        return LearnedFrom(dataset=dataset.manifest.name, rows=[], unknown=[why])
    found = _own(config, dataset)
    return _together(found.dataset, [found], _origins(config), seen)


def _check_as_trained(path: Path, dataset: Dataset) -> None:
    """Refuse a data set that was prepared from another spec than the run has kept."""
    kept, now = path / "spec.yaml", dataset.root / "spec.yaml"
    if kept.is_file() and now.is_file() and kept.read_bytes() != now.read_bytes():
        raise DataError(f"{dataset.root} has been prepared from another spec since")


def _read(path: Path) -> LearnedFrom:
    remedy = "delete it: the run's configuration and data set are then asked"
    return read_record(path, LearnedFrom, tells="what the run learned from", remedy=remedy)


def _shown(time: int) -> str:
    return shown_moment(time * SECOND)


def _age(rows: LearnedRows) -> tuple[int, int]:
    return (-(2**63) if rows.time is None else rows.time), (-(2**63) if rows.clock is None else rows.clock)
