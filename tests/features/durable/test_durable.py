"""Files are whole or absent: at every fault, on errors, and because nobody renames past the helper."""

from __future__ import annotations

import ast
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from features.durable import TMP_PREFIX, exchange, rename, replace_file, replacing, sweep
from features.durable.directory import new_directory
from features.durable.faults import InjectedFault, injected
from features.errors import DataError
from features.store.write import new_dataset

ROOT = Path(__file__).resolve().parents[3]
SOURCES = sorted(p for top in ("ctr", "features", "kernels", "pipelines") for p in (ROOT / top).rglob("*.py"))
# The journal forces its own open file to the disk.
FSYNC = {"features/durable/__init__.py", "ctr/runs/journal.py"}


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """The calls of attributes in a file, by the attribute's name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield node.func.attr, node


def renames_a_path(name: str, call: ast.Call) -> bool:
    """Whether a call is one of os.rename, os.replace, shutil.move, Path.rename or Path.replace.

    str.replace has two arguments, datetime.replace names them, and polars renames by literals and mappings.
    """
    assert isinstance(call.func, ast.Attribute)
    owner = call.func.value.id if isinstance(call.func.value, ast.Name) else ""
    if owner in ("os", "shutil"):
        return name in ("rename", "renames", "replace", "move")
    if name not in ("rename", "replace") or len(call.args) != 1 or call.keywords:
        return False
    (given,) = call.args
    mapping = isinstance(given, ast.Call) and isinstance(given.func, ast.Name) and given.func.id == "dict"
    return not mapping and not isinstance(given, ast.Dict | ast.DictComp | ast.Constant)


@pytest.mark.fault(44)
def test_every_rename_goes_through_the_helper() -> None:
    """So that each has its fault points, and none forgets to force the name to the disk."""
    places = {
        str(path.relative_to(ROOT))
        for path in SOURCES
        for name, call in calls(path)
        if renames_a_path(name, call)
    }
    # A compiled kernel is a cache: it is made again where it is missing, and kernels know no features.
    assert places == {"features/durable/__init__.py", "kernels/native.py"}
    assert {str(p.relative_to(ROOT)) for p in SOURCES for name, _ in calls(p) if name == "fsync"} == FSYNC


def points(*, but_of: tuple[str, ...] = ()) -> list[str]:
    """The point of every rename in the sources, without those of calls of some functions."""
    found = [
        keyword.value.value
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) not in but_of
        for keyword in node.keywords
        if keyword.arg == "point" and isinstance(keyword.value, ast.Constant)
    ]
    return sorted(found)


@pytest.mark.fault(44)
def test_every_rename_has_a_point_of_its_own() -> None:
    assert len(points()) == len(set(points())) > 8 and "ckpt" in points()


@pytest.mark.parametrize(("fault", "content"), [("before", "old"), ("after", "new")])
def test_a_reader_sees_the_old_content_or_the_new(tmp_path: Path, fault: str, content: str) -> None:
    path = tmp_path / "a.json"
    replace_file(path, b"old")
    with injected(f"file.{fault}_rename:raise"), pytest.raises(InjectedFault):
        replace_file(path, b"new")
    assert path.read_text() == content and [*tmp_path.iterdir()] == [path]


def test_what_a_killed_job_left_is_swept(tmp_path: Path) -> None:
    (tmp_path / f"{TMP_PREFIX}a.json").write_text("ha")
    (tmp_path / "a.json").write_text("whole")
    assert sweep(tmp_path) == [tmp_path / f"{TMP_PREFIX}a.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_block_that_raises_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(path, point="test") as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old" and [*tmp_path.iterdir()] == [path]


def test_a_directory_takes_the_place_of_an_empty_one_only(tmp_path: Path) -> None:
    for name in ("new", "empty", "full"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    (tmp_path / "empty" / "file").unlink()
    with pytest.raises(OSError):
        rename(tmp_path / "new", tmp_path / "full", point="test")
    rename(tmp_path / "new", tmp_path / "empty", point="test")
    assert (tmp_path / "empty" / "file").exists() and not (tmp_path / "new").exists()


def test_a_directory_that_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".log.partial-999999999").mkdir()
    with new_directory(tmp_path / "log", point="test") as partial:
        (partial / "file").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


KILLED = """
import sys
from pathlib import Path
import features.durable.directory as directory
from features.durable.faults import injected
directory.exchange = lambda *_, **__: False
with injected(sys.argv[2] + ":kill"), directory.new_directory(Path(sys.argv[1]), point="log") as partial:
    (partial / "file").write_text("new")
"""


@pytest.mark.fault(44)
@pytest.mark.parametrize("point", ["log.aside.before_rename", "log.aside.after_rename", "log.before_rename"])
def test_a_directory_that_was_put_aside_comes_back(point: str, tmp_path: Path) -> None:
    """Where two directories cannot change places at one moment, and the job is killed in between."""
    out = tmp_path / "log"
    out.mkdir()
    (out / "file").write_text("old")
    done = subprocess.run([sys.executable, "-c", KILLED, str(out), point], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL and out.exists() == (point == "log.aside.before_rename")
    with pytest.raises(ZeroDivisionError), new_directory(out, point="log"):
        assert (out / "file").read_text() == "old"  # before anything is made
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_directories_change_places(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    assert exchange(tmp_path / "one", tmp_path / "other", point="test")
    assert (tmp_path / "one" / "other").exists() and (tmp_path / "other" / "one").exists()
    with pytest.raises(FileNotFoundError, match="gone"):
        exchange(tmp_path / "one", tmp_path / "gone", point="test")


# Sources that write files without `replacing`, each with the reason why no reader sees a part of one.
WRITERS = {
    "ctr/bench/synthetic.py": "a data set of a measurement, in a directory of its own",
    "ctr/checkpoint/tensors.py": "below the temporary name of a checkpoint",
    "ctr/compare/matching.py": "a temporary directory",
    "ctr/export/directory.py": "below the temporary name of an export",
    "ctr/report/plots.py": "into memory",
    "ctr/tracking/pyfunc.py": "a temporary directory",
    "features/durable/__init__.py": "the helpers themselves",
    "features/encode/fitted.py": "below the temporary name of a data set",
    "features/partitions/frames.py": "a working directory of one preparation",
    "features/partitions/tasks.py": "a working directory of one preparation",
    "features/past/counter_files.py": "replacing",
    "features/prepare.py": "below the temporary name of a data set",
    "features/remote/tables.py": "below the temporary name of a copy",
    "features/store/remote_dataset.py": "below the temporary name of a copy",
    "features/store/verify.py": "a temporary name",
    "features/store/write.py": "below the temporary name of a data set",
    "features/synthetic/run.py": "below the temporary name of a log",
    "features/synthetic/write.py": "below the temporary name of a log",
}
WRITES = {"write_text", "write_bytes", "savefig", "write_table", "ParquetWriter", "OSFile", "save_file"}


@pytest.mark.fault(25)
def test_every_place_that_writes_a_file_is_known() -> None:
    """Whoever adds one says here why a full disk leaves no torso of it."""
    alone = [path for path in SOURCES if "replacing(" not in path.read_text(encoding="utf-8")]
    found = {str(p.relative_to(ROOT)) for p in alone for name, _ in calls(p) if name in WRITES}
    assert found <= WRITERS.keys(), sorted(found - WRITERS.keys())


@pytest.mark.fault(25)
@pytest.mark.parametrize("fault", ["dataset.exchange.before", "dataset.aside.before", "dataset.before"])
def test_a_full_disk_leaves_the_dataset_that_was_there(
    tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "exchange" not in fault:
        monkeypatch.setattr("features.durable.directory.exchange", lambda *_, **__: False)
    out = tmp_path / "dataset"
    for content in ("old", "new"):
        with injected(f"{fault}_rename:enospc" if content == "new" else ""):
            try:
                with new_dataset(out, overwrite=True) as partial:
                    (partial / "manifest.json").write_text(f'{{"spec_sha256": "", "order": "{content}"}}')
            except (DataError, OSError):
                assert content == "new"
    assert "old" in (out / "manifest.json").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["dataset"]
