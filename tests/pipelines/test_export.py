"""`ctr export`: a directory that scores without this package what `ctr predict` scores, or no directory."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from ctr.export import load
from ctr.export.programs import compile_program
from features.errors import ConfigError
from pipelines.cli import main
from pipelines.train import train
from tests.ctr.tiny_run import tiny_config, tiny_dataset

# Hides what a stranger's environment lacks from the script that follows.
WITHOUT = """
import sys
class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if name.partition('.')[0] in ABSENT else self.finder.find_spec(name, path, target)
    def __getattr__(self, name):  # such as find_distributions, by which packages find their versions
        return getattr(self.finder, name)
ABSENT = 'ctr features kernels pipelines polars'.split()
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""
ALONE = f"""{WITHOUT}
import runpy
ABSENT += 'pyarrow mlflow pandas scipy torchrec fbgemm_gpu'.split()
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
"""
MLFLOW = f"""{WITHOUT}
import mlflow
model = mlflow.pyfunc.load_model(sys.argv[1])
assert model.metadata.signature.inputs.input_names(), model.metadata.signature
print(*[score for scores in model.predict(model.input_example) for score in scores])
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a HyFormer of one layer, whose scores are calibrated."""
    folder = tmp_path_factory.mktemp("export")
    run = folder / "run"
    settings = ("train.epochs=1", "model.encoder.kind=swiglu", "calibration=platt")
    train(tiny_config(tiny_dataset(folder), run, *settings))
    return run


@pytest.fixture(scope="module")
def exported(trained: Path) -> Path:
    """Its portable export."""
    out = trained.parent / "exported"
    assert main(["export", str(trained), "--out", str(out), "--no-compile"]) == 0
    return out


def alone(script: Path, *arguments: str) -> np.ndarray:
    """The scores that a script prints where this package is not."""
    command = [sys.executable, "-I", "-c", ALONE, str(script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, cwd=script.parent)
    assert done.returncode == 0, done.stderr
    return np.array([float(line) for line in done.stdout.split()])


def predicted(run: Path, rows: torch.Tensor, *options: str) -> np.ndarray:
    """The scores of rows in the table of `ctr predict`."""
    assert main(["predict", str(run), *options]) == 0
    table = pl.read_parquet(run / "predictions" / "test.parquet")
    wanted = pl.DataFrame({"row_id": rows.numpy()})
    return wanted.join(table, on="row_id", how="left", maintain_order="left")["score"].to_numpy()


@pytest.mark.slow
def test_a_stranger_gets_the_scores_of_predict(trained: Path, exported: Path) -> None:
    example = load_file(exported / "example.safetensors")
    scores = alone(exported / "load.py")
    np.testing.assert_allclose(scores, predicted(trained, example["row_id"]), atol=1e-6)
    np.testing.assert_allclose(scores, example["score"], atol=1e-6)
    one_by_one = alone(exported / "load.py", str(exported / "example.safetensors"), "1")
    np.testing.assert_allclose(one_by_one, scores, atol=1e-6)
    out = trained.parent / "raw"
    assert main(["export", str(trained), "--out", str(out), "--no-compile", "--raw"]) == 0
    raw = load.score(load.opened(out), load_file(out / "example.safetensors"), 64)
    np.testing.assert_allclose(raw, predicted(trained, example["row_id"], "--raw"), atol=1e-6)
    assert np.abs(raw.numpy() - scores).max() > 1e-3


def test_what_a_stranger_copies_is_short() -> None:
    text = Path(load.__file__).read_text()
    documented = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Module | ast.FunctionDef)]
    words = {
        line
        for node in documented
        if ast.get_docstring(node)
        for line in range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1)
    }
    code = [line for number, line in enumerate(text.splitlines(), 1) if line.strip() and number not in words]
    assert len(code) <= 40


@pytest.mark.slow
def test_the_schema_says_what_is_read(exported: Path) -> None:
    schema = json.loads((exported / "schema.json").read_text())
    example, tables = load_file(exported / "example.safetensors"), load_file(exported / "tables.safetensors")
    for half in ("encode", "score"):
        for column in schema[half]:
            values = example[column["name"]]
            assert str(values.dtype) == f"torch.{column['dtype']}" and column["meaning"], column
            assert column["shape"][0] == "R"
            if column["table"]:
                assert int(values.max()) < schema["tables"][column["table"]]["rows"]
    assert {name: list(table.shape) for name, table in tables.items()} == {
        name: [table["rows"], table["width"]] for name, table in schema["tables"].items()
    }
    assert schema["outputs"] == ["score"] and schema["calibration"]["outputs"][""]["kind"] == "platt"


def test_refusals_leave_nothing(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, foreign = trained, tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "mine.txt").touch()

    def refused(*arguments: str) -> str:
        assert main(["export", *arguments]) != 0
        return capsys.readouterr().err

    assert "must not exist or be an empty directory" in refused(str(run), "--out", str(foreign))
    assert "must be a run directory" in refused(str(tmp_path), "--out", str(tmp_path / "out"))
    assert "--rows must be at least 1" in refused(str(run), "--out", str(tmp_path / "out"), "--rows", "0")
    assert "--checkpoint must name a step of" in refused(
        str(run), "--out", str(tmp_path / "out"), "--checkpoint", "7"
    )
    monkeypatch.setattr("pipelines.export.fill", lambda *a, **k: 0.1)
    said = refused(str(run), "--out", str(tmp_path / "out"), "--no-compile")
    assert "exported scores must equal those of ctr predict within 1e-05, got a difference of 1.0e-01" in said
    assert list(tmp_path.iterdir()) == [foreign] and list(foreign.iterdir()) == [foreign / "mine.txt"]


def test_without_a_compiler_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match="add --no-compile"):
        compile_program(None, tmp_path / "x.pt2")  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hyformer", "longer", "two_stage"])
def test_compiled_models_give_the_scores_of_predict(kind: str, tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    longer = [] if kind == "hyformer" else ["model.longer.num_queries=4"]
    train(tiny_config(tiny_dataset(tmp_path), run, "train.epochs=1", f"model.kind={kind}", *longer))
    assert main(["export", str(run), "--out", str(out)]) == 0
    assert (out / "score.aoti.pt2").is_file()
    scores = alone(out / "load.py")
    np.testing.assert_allclose(scores, load_file(out / "example.safetensors")["score"], atol=1e-5)


@pytest.mark.slow
def test_mlflow_loads_it_without_this_package(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["export", str(trained), "--out", str(out), "--no-compile", "--mlflow"]) == 0
    command = [sys.executable, "-I", "-c", MLFLOW, str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    scores = np.array([float(text) for text in done.stdout.split()])
    example = load_file(out / "example.safetensors")
    np.testing.assert_allclose(scores, example["score"][: int(example["candidate.ends"][2])], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hyformer", "longer", "two_stage"])
def test_onnx_files_give_the_same(kind: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    run, out = tmp_path / "run", tmp_path / "out"
    longer = [] if kind == "hyformer" else ["model.longer.num_queries=4"]
    settings = ("train.epochs=1", "calibration=platt", f"model.kind={kind}", *longer)
    train(tiny_config(tiny_dataset(tmp_path), run, *settings))
    assert main(["export", str(run), "--out", str(out), "--no-compile", "--onnx"]) == 0
    schema, tables, encode, score = load.opened(out)
    file = load_file(out / "example.safetensors")

    def ran(name: str, *tensors: torch.Tensor) -> list[torch.Tensor]:
        session = onnxruntime.InferenceSession(str(out / f"{name}.onnx"))
        feed = {given.name: t.numpy() for given, t in zip(session.get_inputs(), tensors, strict=True)}
        return [torch.from_numpy(found) for found in session.run(None, feed)]

    for some in (torch.arange(5), torch.arange(5, 6)):
        asked, shown = (load.inputs(schema, half, file, some) for half in ("encode", "score"))
        state = ran("encode", *tables.values(), *asked.values())
        got = ran("score", *tables.values(), *state, *shown.values())
        with torch.no_grad():
            expected = list(score(tables, encode(tables, asked), shown))
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)
