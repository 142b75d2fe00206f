"""Public data sets: tiny files in their owners' formats, through the shipped specs."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from features.dataset import SPLITS, Dataset
from features.errors import DataError
from features.prepare import prepare
from features.sources import read_source
from features.spec import Source, Spec, load_spec
from pipelines.cli import main
from tests.documents import ROOT
from tests.features.sources.public_logs import PUBLIC

SPECS = ROOT / "pipelines" / "configs" / "specs"


def spec_of(name: str, root: Path, published: dict[str, dict[str, int]] | None = None) -> Spec:
    spec = load_spec(SPECS / f"{name}.yaml")
    told = spec.split.published if published is None else published
    return spec.model_copy(
        update={
            "source": spec.source.model_copy(update={"path": str(root)}),
            "split": spec.split.model_copy(update={"published": told}),
        }
    )


def lengths(data: Dataset, domain: str) -> tuple[list[int], ...]:
    requests = [data.split(part).requests for part in SPLITS]
    bounds = [[r[f"{end}.{domain}"].to_numpy() for end in ("start", "end")] for r in requests]
    return tuple((end - start).tolist() for start, end in bounds)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_files_of_the_public_format_become_rows_labels_and_histories(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    want = PUBLIC[name](tmp_path / "log")
    spec = spec_of(name, tmp_path / "log")
    with caplog.at_level(logging.WARNING):
        prepare(spec, tmp_path / "out", base=Path())
    assert f"data set {name!r} is published as {next(iter(spec.split.published))} with " in caplog.text
    data = Dataset(tmp_path / "out")
    splits = [data.manifest.splits[part] for part in SPLITS]
    assert tuple(s.impressions for s in splits) == want.rows
    assert tuple(s.positives for s in splits) == want.clicks
    assert {domain: lengths(data, domain) for domain in data.manifest.domains} == want.lengths


def test_an_edition_with_the_published_counts_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    PUBLIC["mind"](tmp_path / "log")  # of exploded lines the lines are counted: 3 and 1, in 10 rows
    known, told = {"other": {"train": 5}, "tiny": {"train+valid": 3, "test": 1}}, list[str]()
    prepare(spec_of("mind", tmp_path / "log", known), tmp_path / "out", base=Path(), progress=told.append)
    assert "as many rows as tiny is published with: train+valid 3, test 1" in told
    assert "published" not in caplog.text


def test_events_of_ebnerd_have_the_time_at_which_a_weekly_history_shows_them(tmp_path: Path) -> None:
    PUBLIC["ebnerd"](tmp_path)
    reads = read_source(Source(kind="ebnerd", path=str(tmp_path)), base=Path())["reads"].collect()
    begin, week = datetime(2023, 5, 18, 8), timedelta(days=7)  # the full hour of the first page
    shown = [(1, 11, 2, 145), (1, 12, 0, 2), (1, 13, -1, 97), (2, 11, 0, 2), (2, 12, -1, 145)]
    want = [(u, a, begin - n * week - timedelta(seconds=1), float(hours)) for u, a, n, hours in shown]
    assert reads.select("user_id", "article_id", "time", "hours_before").rows() == want


def test_a_history_that_goes_on_in_its_own_week_is_refused(tmp_path: Path) -> None:
    PUBLIC["ebnerd"](tmp_path)
    file = tmp_path / "train" / "history.parquet"
    late = pl.element() + pl.duration(days=1)
    pl.read_parquet(file).with_columns(pl.col("impression_time_fixed").list.eval(late)).write_parquet(file)
    with pytest.raises(DataError, match=r"train/history.parquet: a history must end before .* holds 1 later"):
        read_source(Source(kind="ebnerd", path=str(tmp_path)), base=Path())


@pytest.mark.parametrize(("differ", "both"), [(False, True), (True, True), (True, False)])
def test_a_user_of_ebnerd_with_two_histories(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, differ: bool, both: bool
) -> None:
    """Rows that agree are one; others are refused, even where only what was read for how long differs."""
    PUBLIC["ebnerd"](tmp_path)
    source, file = Source(kind="ebnerd", path=str(tmp_path)), tmp_path / "validation" / "history.parquet"
    before, users = read_source(source, base=Path())["reads"].collect(), pl.read_parquet(file)
    again = users if both else users.tail(1)
    if differ:
        longer = pl.col("read_time_fixed").list.eval(pl.element() + 1)
        again = again.with_columns(pl.when(pl.col("user_id") == 2).then(longer).otherwise("read_time_fixed"))
    pl.concat([users, again]).write_parquet(file)
    if differ:
        with pytest.raises(
            DataError, match=r"validation/history.parquet must have one row .* 1 users .*\[2\]"
        ):
            read_source(source, base=Path())
        return
    found = read_source(source, base=Path())["reads"].collect()
    assert found.drop("__file").equals(before.drop("__file"))
    assert "history.parquet: 2 rows repeat the whole row of their user" in caplog.text


@pytest.mark.parametrize(
    ("file", "column"),
    [("behaviors.parquet", "impression_time"), ("history.parquet", "impression_time_fixed")],
)
def test_times_of_ebnerd_as_numbers_name_their_file(tmp_path: Path, file: str, column: str) -> None:
    PUBLIC["ebnerd"](tmp_path)
    path = tmp_path / "validation" / file
    rows = pl.read_parquet(path)
    to_ms = pl.col(column).list.eval(pl.element().dt.timestamp("ms"))
    rows.with_columns(
        to_ms if "fixed" in column else pl.col(column).dt.timestamp("ms"),
    ).write_parquet(path)
    with pytest.raises(DataError, match=rf"validation/{file}: column '{column}' must hold .*datetimes, got"):
        read_source(Source(kind="ebnerd", path=str(tmp_path)), base=Path())


def test_a_page_of_ebnerd_whose_clicks_are_missing_is_refused(tmp_path: Path) -> None:
    PUBLIC["ebnerd"](tmp_path / "log")
    file = tmp_path / "log" / "validation" / "behaviors.parquet"
    first = pl.int_range(pl.len()) > 0
    pages = pl.read_parquet(file).with_columns(pl.when(first).then("article_ids_clicked"))
    pages.write_parquet(file)
    with pytest.raises(DataError, match=r"'article_ids_clicked' must hold .* 1 rows \(.*validation/b.* null"):
        prepare(spec_of("ebnerd", tmp_path / "log", {}), tmp_path / "out", base=Path())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "model"), [("ebnerd", "hyformer"), ("taobaoad-x1", "din"), ("criteo-x1", "dcn")]
)
def test_a_public_log_trains(name: str, model: str, tmp_path: Path) -> None:
    PUBLIC[name](tmp_path / "log")
    prepare(spec_of(name, tmp_path / "log", {}), tmp_path / "data", base=Path())
    settings = {
        "dataset": tmp_path / "data", "run": tmp_path / "run", "train.epochs": 1, "tracking.uri": "null",
        "train.metric": "log_loss", "embedding.dim": 8,
    }  # fmt: skip
    changed = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    config = ROOT / "pipelines" / "configs" / f"public-{model}.yaml"
    assert main(["train", str(config), *changed]) == 0
    assert (tmp_path / "run" / "journal.jsonl").is_file()


@pytest.mark.parametrize("name", sorted(PUBLIC.keys() - {"ebnerd"}))  # which is Parquet
def test_a_line_of_another_shape_is_named(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    want = PUBLIC[name](tmp_path / "log")
    assert want.broken is not None
    file, line = want.broken
    with (tmp_path / "log" / file).open("a") as log:
        log.write(f"{line}\n")
    spec, source = str(SPECS / f"{name}.yaml"), str(tmp_path / "log")
    assert main(["prepare", "--spec", spec, "--source", source, "--out", str(tmp_path / "out")]) == 3
    assert want.message in capsys.readouterr().err
