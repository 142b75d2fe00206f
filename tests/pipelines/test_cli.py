"""The `ctr` command: help, exit codes, messages that name the remedy, nothing left behind by a refusal."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ctr.config import RunConfig, load_config
from ctr.generate.config import load_generate_config
from features.safe_yaml import dump_yaml, load_yaml
from features.spec import load_spec
from pipelines import cli
from pipelines.cli import COMMANDS, guarded, main
from pipelines.terminal import echo
from tests.ctr.tiny_run import settings, tiny_dataset, write_config

CONFIGS = Path(cli.__file__).parent / "configs"
SIMULATOR = CONFIGS / "specs" / "simulator.yaml"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture
def run_config(dataset: Path, tmp_path: Path) -> Path:
    return write_config(tmp_path / "run.yaml", dataset, tmp_path / "run")


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """Exit code and message of a command that ends with an error."""
    capsys.readouterr()
    code = main([str(a) for a in arguments])
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith("error: ") and "Traceback" not in shown.err
    return code, shown.err


def changed_yaml(path: Path, source: dict[str, Any], **values: Any) -> Path:
    """A YAML file with some top-level keys set."""
    path.write_text(dump_yaml({**source, **values}))
    return path


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    text = capsys.readouterr().out
    assert ended.value.code == 0
    assert text.startswith(f"usage: ctr {command}")


def test_help_names_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert all(f"    {command} " in text for command in COMMANDS)


@pytest.mark.parametrize("arguments", [[], ["trian"], ["train"], ["evaluate", "run", "--split", "tset"]])
def test_wrong_usage_is_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2 and "usage: ctr" in capsys.readouterr().err


@pytest.mark.parametrize("given", ["nan", "-1", "inf", "some"])
@pytest.mark.parametrize(
    "command",
    ["ablate plan.yaml --select --margin", "ablate plan.yaml --budget", "score run --serve --timeout"],
)  # fmt: skip
def test_a_share_or_a_time_is_a_finite_number(
    command: str, given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A comparison with nan is never true: nothing would be below the margin, and no time would be up."""
    with pytest.raises(SystemExit, match="2"):
        main([*command.split(), given])
    assert f"must be a number of at least 0, got '{given}'" in (told := capsys.readouterr().err) or (
        f"must be a number from 0 to 1, got '{given}'" in told
    )


@pytest.mark.parametrize("workers", ["0", "-1", "two"])
@pytest.mark.parametrize("command", ["ablate", "scaling", "tune"])
def test_fewer_than_one_training_at_a_time_is_wrong_usage(
    command: str, workers: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "no-such-plan.yaml", "--workers", workers])
    assert ended.value.code == 2
    assert (
        f"argument --workers: must be a whole number of at least 1, got '{workers}'"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("override", "names"),
    [
        ("train.epoch=3", ["train.epoch"]),
        ("model.d_model=wide", ["model.d_model", "wide"]),
        ("model.kind=hyperformer", ["model.kind", "hyperformer", "two_stage"]),
        ("optimizer.lr=-1", ["optimizer.lr", "-1"]),
        ("model.dropout=1.0", ["model.dropout", "1.0"]),
        ("train.epochs", ["path=value"]),
        ("model.d_model=10", ["D=10", "T=3"]),
        ("model.queries={watch: 2}", ["watch", "view"]),
        ("loader.max_len={view: 99}", ["loader.max_len.view", "6", "99"]),
        ("loader.max_len={watch: 3}", ["watch", "view"]),
    ],
)
def test_wrong_settings_are_named(
    override: str, names: list[str], run_config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = refused(capsys, "train", run_config, "--set", override)
    assert code == 2 and all(name in text for name in names), text
    assert not (run_config.parent / "run").exists()


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("dataset: a\ndataset: b\n", ["line 2", "dataset"]),
        ("dataset: [a\n", ["line 2"]),
        ("dataset: !!python/object:os.system x\n", ["line 1", "tags"]),
        ("- a\n", ["mapping"]),
        ("run: here\n", ["dataset"]),
    ],
)
def test_bad_yaml_is_named_with_its_line(
    text: str, names: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    code, message = refused(capsys, "train", path)
    assert code == 2 and all(name in message for name in [str(path), *names]), message


def test_missing_files_are_named(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gone = tmp_path / "gone"
    code, text = refused(capsys, "train", gone)
    assert code == 2 and str(gone) in text
    config = write_config(tmp_path / "run.yaml", gone, tmp_path / "run")
    code, text = refused(capsys, "train", config)
    assert code == 3 and str(gone) in text and "ctr prepare" in text
    assert not (tmp_path / "run").exists()
    code, text = refused(capsys, "doctor", gone)
    assert code == 3 and str(gone) in text
    code, text = refused(capsys, "baseline", gone)
    assert code == 3 and str(gone) in text
    code, text = refused(capsys, "prepare", "--spec", gone, "--out", tmp_path / "out")
    assert code == 2 and str(gone) in text and not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["evaluate", "predict", "sync"])
def test_a_directory_that_is_no_run_is_refused_and_left_alone(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "gone"):
        code, text = refused(capsys, command, path)
        assert code == 2 and str(path) in text
    assert not (tmp_path / "gone").exists() and not list((tmp_path / "empty").iterdir())


@pytest.mark.fault(40)
def test_changed_data_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = tiny_dataset(tmp_path)
    events = dataset / "events" / "view.arrow"
    data = bytearray(events.read_bytes())
    data[len(data) // 2] ^= 1
    events.write_bytes(bytes(data))
    code, text = refused(capsys, "train", write_config(tmp_path / "run.yaml", dataset, tmp_path / "run"))
    assert code == 3 and "view.arrow" in text and "sha256" in text


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"featurs": {}}, ["featurs"]),
        ({"time_unit": "hours"}, ["time_unit", "hours"]),
        ({"tokens": {"user": ["segment", "shoe_size"]}}, ["shoe_size"]),
        ({"split": {"valid": 0.1, "tset": 0.2}}, ["split.tset"]),
    ],
)
def test_a_wrong_spec_is_named(
    values: dict[str, Any], names: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = changed_yaml(tmp_path / "spec.yaml", load_yaml(SIMULATOR), **values)
    code, text = refused(capsys, "prepare", "--spec", spec, "--out", tmp_path / "out", "--source", tmp_path)
    assert code == 2 and all(name in text for name in names), text
    assert not (tmp_path / "out").exists()


def test_dry_runs_write_nothing(run_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert main(["train", str(run_config), "--set", "train.epochs=9", "--dry-run"]) == 0
    resolved = capsys.readouterr().out
    assert "dense_parameters: " in resolved and "embedding_parameters: 1,320" in resolved
    (tmp_path / "again.yaml").write_text(resolved)  # the sizes are comments: what is shown is a configuration
    assert load_config(tmp_path / "again.yaml") == load_config(run_config, ["train.epochs=9"])
    (tmp_path / "again.yaml").unlink()
    assert main(["prepare", "--spec", str(SIMULATOR), "--out", str(tmp_path / "out"), "--dry-run"]) == 0
    assert "is valid: data set simulator" in capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before


PLANS = {"ablations", "rolls", "scaling", "tuning"}  # they have tests of their own
SHIPPED = [p for p in sorted(CONFIGS.rglob("*.yaml")) if p.parent.name not in PLANS]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_every_shipped_configuration_is_valid(path: Path) -> None:
    if path.parent.name == "specs":
        assert load_spec(path).features
    elif path.name.startswith("generate-"):
        assert load_generate_config(path).strategies
        assert f"ctr generate train pipelines/configs/{path.name}" in path.read_text()
    else:
        config = load_config(path)
        assert isinstance(config, RunConfig)
        assert (
            path.read_text().startswith("#")
            and f"ctr train pipelines/configs/{path.name}" in path.read_text()
        )


def test_a_configuration_survives_its_own_yaml(dataset: Path, tmp_path: Path) -> None:
    path = changed_yaml(tmp_path / "run.yaml", settings(dataset, tmp_path / "run"), seed=12)
    config = load_config(path)
    again = changed_yaml(tmp_path / "again.yaml", config.model_dump(mode="json"))
    assert load_config(again) == config and config.seed == 12


def test_the_command_loads_ctr_only_where_an_error_becomes_a_message() -> None:
    """A wrong torch makes `import ctr` raise ConfigError: exit code 2 and a message, no traceback."""
    code = (
        "import sys; from importlib import metadata; import pipelines.cli as cli\n"
        "assert not [m for m in sys.modules if m == 'torch' or m == 'ctr' or m.startswith('ctr.')]\n"
        "real = metadata.version\n"
        "metadata.version = lambda name: '1.0' if name == 'torch' else real(name)\n"
        "sys.exit(cli.main(['train', 'run.yaml']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: "), done.stderr
    assert "torch must be" in done.stderr and "make clean env" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("error", "code"), [(KeyboardInterrupt(), 130), (OSError(28, "No space left on device"), 75)]
)
def test_interruptions_and_full_disks_have_codes(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def job() -> int:
        raise error

    assert cli.guarded(job) == code
    assert "Traceback" not in capsys.readouterr().err


def test_a_fault_of_the_program_is_one_line_and_a_kept_traceback(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def job() -> int:
        raise KeyError("col\x1b[2J")

    assert guarded(job) == 1
    [line] = capsys.readouterr().err.splitlines()
    [kept] = tmp_path.iterdir()
    assert line.startswith("error: ctr did not expect this: KeyError: 'col\\x1b[2J'; it is a fault of ctr")
    assert line.endswith(str(kept)) and "in job" in kept.read_text() and kept.stat().st_mode & 0o077 == 0


def test_a_panic_of_polars_is_a_fault_too(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it is no Exception."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def job() -> int:
        raise pl.exceptions.PanicException("assertion failed")

    assert guarded(job) == 1 and len([*tmp_path.iterdir()]) == 1
    assert "error: ctr did not expect this: PanicException: assertion failed" in capfd.readouterr().err
    with pytest.raises(SystemExit):
        guarded(lambda: sys.exit(3))


def test_a_fault_is_told_also_where_no_file_can_be_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    assert guarded(lambda: [][1]) == 1
    assert "which could not be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_too_little_memory_is_no_fault(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    def job() -> int:
        raise error

    assert guarded(job) == 75
    assert capsys.readouterr().err.startswith("error: the memory must hold what the command needs")


def test_commands_print_through_one_door() -> None:
    """So that control characters of names and values never reach a terminal."""
    found = [
        f"{path.name}:{node.lineno}"
        for path in Path(cli.__file__).parent.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert [place for place in found if not place.startswith(("terminal.py:", "results_page.py:"))] == []


def test_every_program_turns_errors_into_codes() -> None:
    """What can be started, apart from measuring processes of ctr bench, runs inside `guarded`."""
    root = Path(cli.__file__).parents[1]
    started = [
        path.relative_to(root).as_posix()
        for folder in ("ctr", "features", "kernels", "pipelines")
        for path in (root / folder).rglob("*.py")
        if "__main__" in (text := path.read_text(encoding="utf-8")) and "guarded" not in text
    ]
    # ctr/export/load.py is the script that an export brings, for where this package is not.
    others = ["ctr/bench/child.py", "ctr/bench/exchange.py", "ctr/export/load.py", "pipelines/train.py"]
    assert sorted(started) == others
    assert "from pipelines.cli import main" in (root / "pipelines/train.py").read_text(encoding="utf-8")


@pytest.mark.fault(45)
@pytest.mark.parametrize("text", ["\x1b[2J", "\x9b31m", "\u202e", "a\rb", "\x00", "\ud800"])
def test_control_characters_are_shown_not_sent(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    echo(f"user {text}\tä 中\n")
    shown = capsys.readouterr().out
    escaped = "".join(
        c if c.isascii() and c.isprintable() else c.encode("unicode_escape").decode() for c in text
    )
    assert shown == f"user {escaped}\tä 中\n\n"
