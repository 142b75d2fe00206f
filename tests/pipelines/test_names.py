"""Names that come from elsewhere lead nowhere: in specs, plans, data sets and journals of strangers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ctr.ablate.plan import parse_plan
from ctr.generate.config import load_generate_config
from ctr.runs.directory import RunDir
from ctr.scaling.sweep import load_sweep
from ctr.tracking import sync
from ctr.tracking.pyfunc import saved_model
from features.dataset import Dataset, read_manifest
from features.errors import ConfigError
from features.safe_yaml import dump_yaml
from features.spec import load_spec, parse_spec
from features.store.manifest import sealed_json
from tests.ctr.fake_mlflow import FakeServer, install
from tests.ctr.tiny_run import tiny_dataset
from tests.features.small_log import RATINGS_SPEC, changed

BAD = ["../x", "/etc", "a/../../b", "con\n", "..", "a\\b", "x\0"]
bad = pytest.mark.parametrize("name", BAD, ids=repr)
PAIR = {"candidate": "item.year", "column": "user.sex"}
KINDS = [
    "tables",
    "features",
    "domains",
    "counters",
    "matches",
    "pairs",
    "ages",
    "crosses",
    "pages",
    "tokens",
    "slices",
]


def written(path: Path, data: dict[str, Any]) -> Path:
    path.write_text(dump_yaml(data))
    return path


def key_of(kind: str, name: str, folder: Path) -> None:
    """A spec whose first entry of a kind has that name."""
    more = {"pairs": {"year": PAIR}, "ages": {"movie": "item.added"}}
    more |= {"crosses": {"taste": ["user.sex", "item.genres"]}}
    spec = changed(RATINGS_SPEC, pages={"year": {"column": "item.year"}}, **more)
    first = next(iter(spec[kind].values()))
    spec[kind] = {**spec[kind], name: first}
    spec["tokens"] = {**spec["tokens"], "more": [name]} if kind == "features" else spec["tokens"]
    parse_spec(spec)


def extends(name: str, folder: Path) -> None:
    load_spec(written(folder / "spec.yaml", {"extends": name}))


def sweep(name: str, folder: Path) -> None:
    plan = {"name": name, "base": {}, "axis": "width", "values": [8, 16, 24, 32]}
    load_sweep(written(folder / "sweep.yaml", plan))


def strategy(name: str, folder: Path) -> None:
    config = {
        "dataset": "data",
        "run": "run",
        "ids": {"run": "clicks", "codes": [6, 4]},
        "generator": {"domain": "view", "d_model": 12, "heads": 2},
        "train": {"metric": "ne"},
        "strategies": {name: {}},
        "strategy": name,
    }
    load_generate_config(written(folder / "generate.yaml", config))


DOORS: dict[str, Callable[[str, Path], object]] = {
    "spec": lambda name, folder: parse_spec({**RATINGS_SPEC, "name": name}),
    "extends": extends,
    "plan": lambda name, folder: parse_plan({"name": name, "base": {}, "variants": {}}),
    "variant": lambda name, folder: parse_plan({"name": "a", "base": {}, "variants": {name: {}}}),
    "sweep": sweep,
    "strategy": strategy,
    **{kind: partial(key_of, kind) for kind in KINDS},
}


def test_good_names_pass(tmp_path: Path) -> None:
    for door, read in DOORS.items():
        if door != "extends":
            read("fine-1", tmp_path)


@pytest.mark.fault(34)
@bad
@pytest.mark.parametrize("door", DOORS)
def test_every_file_with_names_refuses_them(door: str, name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name must start with a letter or digit"):
        DOORS[door](name, tmp_path)


def foreign(root: Path, **changes: Any) -> Path:
    """The data set of a stranger, who has sealed it."""
    manifest = read_manifest(root)
    (root / "manifest.json").write_text(sealed_json(manifest.model_copy(update=changes)))
    return root


@pytest.mark.fault(34)
@bad
def test_a_data_set_names_no_files_outside(name: str, tmp_path: Path) -> None:
    root = tiny_dataset(tmp_path)
    manifest = read_manifest(root)
    with pytest.raises(ConfigError, match="a path name must start"):
        Dataset(foreign(root, files={**manifest.files, name: "0" * 64}))
    domains = {**manifest.domains, name: manifest.domains["view"]}
    opened = Dataset(foreign(root, files=manifest.files, domains=domains))
    with pytest.raises(ConfigError, match="a path name must start"):
        opened.events(name)


@pytest.mark.fault(34)
def test_a_data_set_is_read_through_no_link_that_leads_out(tmp_path: Path) -> None:
    root = tiny_dataset(tmp_path)
    events = root / "events" / "view.arrow"
    events.rename(tmp_path / "view.arrow")
    events.symlink_to(tmp_path / "view.arrow")
    with pytest.raises(ConfigError, match=r"must stay under .*a symbolic link leads to .*remove the link"):
        Dataset(root)


@pytest.mark.fault(34)
@pytest.mark.parametrize("kind", ["artifact", "model"])
@pytest.mark.parametrize("path", [*BAD, "link", "link/secret"], ids=repr)
def test_sync_sends_no_files_but_those_of_the_run(
    kind: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A journal may come from elsewhere: it must not make us send our files."""
    servers = {"fake:a": FakeServer()}
    install(monkeypatch, servers)
    (tmp_path / "secret").mkdir()
    with RunDir.open(tmp_path / "run") as run:
        (run.path / "link").symlink_to(tmp_path)
        more = (
            {"opener": "pipelines.logged_model:open_run", "wall": {"dataset": "x"}} if kind == "model" else {}
        )
        run.journal.write(kind, 1, path=path, **more)
    with pytest.raises(ConfigError, match=r"name must start|must stay under"):
        sync(tmp_path / "run", "fake:a")
    assert servers["fake:a"].run.artifacts == []


@pytest.mark.fault(6)
@pytest.mark.parametrize("opener", ["os:system", "runs.stranger.evil:x", "pipelines.x:a b", "", "pipelines"])
def test_a_journal_makes_mlflow_import_nothing_foreign(opener: str, tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match="opener must be module:function of pipelines or ctr"),
        saved_model(tmp_path / "config.yaml", tmp_path, dataset="x", opener=opener),
    ):
        pass
