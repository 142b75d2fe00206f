"""Only what the product made is replaced or removed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ctr.runs.directory import RunDir
from features.durable.own import MARKER, claim, is_own
from features.errors import ConfigError
from features.store.write import new_dataset
from pipelines.cli import main

FOREIGN: list[dict[str, str]] = [
    {"config.yaml": "port: 80\n"},
    {"manifest.json": '{"name": "a web app", "start_url": "/", "order": 1}'},
    {"lock": "apt", "notes.txt": "mine"},
    {".tmp-work": "in progress"},
    {"journal.jsonl": '{"text": "dear diary"}\n'},
    {"journal.jsonl": "dear diary\n"},
    {"index.html": "<p>home</p>", "style.css": "p {}"},
    {MARKER: '{"made_by": "ctr", "what": "something else", "format": 1}', "x": "y"},
    {MARKER: "[" * 5000, "x": "y"},
]


@pytest.fixture(params=range(len(FOREIGN)))
def foreign(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    for name, text in FOREIGN[request.param].items():
        (folder / name).write_text(text)
    return folder


def content(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.iterdir()}


@pytest.mark.fault(41)
def test_a_foreign_directory_is_no_run(foreign: Path) -> None:
    before = content(foreign)
    with pytest.raises(ConfigError, match=r"site must be new, empty, or a run that ctr made, but holds"):
        RunDir.open(foreign)
    assert content(foreign) == before


@pytest.mark.fault(41)
def test_a_foreign_directory_is_no_dataset(foreign: Path) -> None:
    before = content(foreign)
    with (
        pytest.raises(ConfigError, match="holds files that are no dataset"),
        new_dataset(foreign, overwrite=True),
    ):
        pass
    assert content(foreign) == before


@pytest.mark.fault(41)
@pytest.mark.parametrize("option", ["--data", "--run"])
def test_the_demo_removes_nothing_foreign(
    foreign: Path,
    option: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = content(foreign)
    monkeypatch.chdir(tmp_path)
    assert main(["demo", option, str(foreign)]) == 2
    assert "site must be new, empty" in capsys.readouterr().err
    assert content(foreign) == before


def test_runs_of_before_the_marker_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with RunDir.open(path) as run:
        run.journal.write("run", 0, params={})
    (path / MARKER).unlink()
    RunDir.open(path).close()
    assert is_own(path, "run")


def test_a_run_killed_in_its_first_moment_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "run"
    (path / "checkpoints").mkdir(parents=True)
    (path / "lock").write_text("")
    RunDir.open(path).close()


def test_a_run_killed_before_its_marker_had_its_name_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.mkdir()
    (path / f".tmp-{MARKER}").write_text('{"made_by"')
    RunDir.open(path).close()
    assert is_own(path, "run") and not list(path.glob(".tmp-*"))


def test_a_later_format_is_named(tmp_path: Path) -> None:
    claim(tmp_path / "a", "run")
    (tmp_path / "a" / MARKER).write_text(json.dumps({"made_by": "ctr", "what": "run", "format": 2}))
    with pytest.raises(ConfigError, match=r"must be of format 1, but its .* says 2"):
        RunDir.open(tmp_path / "a")


def test_a_file_or_a_dangling_link_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link"):
        with pytest.raises(ConfigError, match="must be a directory, but a file is there"):
            claim(tmp_path / name, "run")


def test_what_lies_in_an_own_directory_needs_no_marker(tmp_path: Path) -> None:
    claim(tmp_path / "run", "run")
    claim(tmp_path / "run" / "report", "report")
    assert list((tmp_path / "run" / "report").iterdir()) == []
