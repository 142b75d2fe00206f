"""The table of sparse optimizers: its door, which options and engines each has, and their page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ctr.checkpoint.checkpoint import load_latest
from ctr.config import EmbeddingConfig, parse_config
from ctr.embedding import make_tables
from ctr.embedding.fbgemm_options import check_kernels
from ctr.runs.versions import fbgemm_available
from ctr.sparse_optim import OPTIMIZERS, optimizer_class, overview
from features.errors import ConfigError
from pipelines.ablate import ablate
from pipelines.ablate_worker import work
from pipelines.cli import main
from pipelines.train import train
from tests.ctr.ablate.small import Inline, open_small, small_log
from tests.ctr.tiny_run import tiny_config, tiny_dataset, write_config

ROOT = Path(__file__).resolve().parents[3]
TOY = (
    "embedding.optimizer=sgd",
    "embedding.optimizer_options={max_norm: 0.5}",
    "embedding.weight_decay=0.01",
)


@pytest.fixture
def sgd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPTIMIZERS, "sgd", "tests.ctr.sparse_optim.toy_sgd.Sgd")


def embedding(**options: object) -> EmbeddingConfig:
    return parse_config({"dataset": "d", "run": "r", "embedding": options}).embedding


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_optimizer_says_what_it_is(name: str) -> None:
    """What its class says is what its tensors are, and untouched rows stay."""
    rule = optimizer_class(name)
    config = embedding(optimizer=name)
    optimizer = rule(7, 3, config.sparse_options(), torch.device("cpu"))
    assert {n: tuple(t.shape) for n, t in optimizer.state().items()} == {
        n: rule.state_shape(n, 7, 3) for n in rule.STATE
    }
    weight, ids = torch.ones(7, 3), torch.tensor([5, 1])
    optimizer.update(weight, ids, [torch.ones(1, 3), -torch.ones(1, 3)], lr=0.1, step=1)
    untouched = torch.ones(7, dtype=torch.bool).index_fill_(0, ids, False)
    assert torch.equal(weight[untouched], torch.ones(5, 3)) and weight[5, 0] < 1 < weight[1, 0]
    assert all((t[untouched] == 0).all() and (t[ids] != 0).all() for t in optimizer.state().values())
    assert rule.__doc__ and rule.RULE and "torch" in rule.engines()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"betas": [0.8, 0.99]},
            r"rowwise_adagrad has no option betas.*\(optimizers that have it: adam, adam_ar\)",
        ),
        (
            {"optimizer_options": {"momentum": 0.9}},
            r"has no option momentum.*\(optimizers that have it: none\)",
        ),
        ({"optimizer_options": {"eps": 1e-6}}, "must be set as embedding.eps"),
        (
            {"optimizer": "sgd"},
            "must be one of rowwise_adagrad, adam, adam_ar, rowwise_adagrad_ar, got 'sgd'",
        ),
    ],
)
def test_options_that_would_change_nothing_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        embedding(**options)


def test_options_reach_the_rule(sgd: None) -> None:
    config = embedding(optimizer="sgd", optimizer_options={"max_norm": 0.5}, weight_decay=0.1)
    assert config.sparse_options().model_dump() == {"weight_decay": 0.1, "max_norm": 0.5}
    assert embedding(optimizer="adam", betas=[0.8, 0.99]).sparse_options().model_dump() == {
        "eps": 1e-8, "betas": (0.8, 0.99), "weight_decay": 0.0,
    }  # fmt: skip
    with pytest.raises(ConfigError, match="max_norm: Input should be greater than 0"):
        embedding(optimizer="sgd", optimizer_options={"max_norm": 0})
    with pytest.raises(ConfigError, match=r"sgd has no option eps, .*rowwise_adagrad, adam"):
        embedding(optimizer="sgd", eps=1e-6)


@pytest.mark.skipif(not fbgemm_available(), reason="fbgemm is not installed")
def test_an_engine_that_lacks_the_optimizer_refuses_it(sgd: None) -> None:
    with pytest.raises(
        ConfigError, match=r"engine fbgemm must have the optimizer on cpu, but sgd runs in torch;"
    ):
        make_tables({"item": 9}, EmbeddingConfig(engine="fbgemm", optimizer="sgd", dim=4), seed=1)
    config = EmbeddingConfig(optimizer="sgd", dim=4)
    with pytest.raises(ConfigError, match=r"engine torchrec must have .* sgd runs in torch; change it"):
        check_kernels(config, "torchrec", torch.device("cpu"), remedy="change it")
    found = make_tables({"item": 9}, EmbeddingConfig(engine="auto", optimizer="sgd", dim=4), seed=1)
    assert type(found).__name__ == "TorchTables"


def test_the_page_lists_what_there_is() -> None:
    assert overview() in (ROOT / "docs" / "architecture.md").read_text()


def test_it_trains(sgd: None, tmp_path: Path) -> None:
    """With the state that its file names in the checkpoint."""
    train(tiny_config(tiny_dataset(tmp_path), tmp_path / "run", *TOY))
    last = load_latest(tmp_path / "run" / "checkpoints")
    assert last is not None
    assert any((last.tensors[name] > 1).any() for name in last.tensors if name.endswith(".updates"))


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    code = main([str(a) for a in arguments])
    shown = capsys.readouterr()
    assert code == 0, shown.err
    return shown.out


@pytest.mark.slow
def test_it_trains_is_evaluated_compared_and_measured(
    sgd: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From its file and its line alone."""
    dataset = tiny_dataset(tmp_path)
    for name, options in (("adagrad", ()), ("sgd", TOY)):
        run(capsys, "train", write_config(tmp_path / f"{name}.yaml", dataset, tmp_path / name, *options))
        assert "auc" in run(capsys, "evaluate", tmp_path / name).lower()
    out = run(
        capsys, "evaluate", "--compare", tmp_path / "adagrad", tmp_path / "sgd", "--out", tmp_path / "c"
    )
    assert "sgd" in out and "sgd" in (tmp_path / "c" / "comparison.json").read_text()
    sizes = ("--rows-per-request", 1, "--requests", 2, "--config", tmp_path / "sgd.yaml")
    run(capsys, "bench", "--quick", "train", *sizes, "--out", tmp_path / "bench")
    assert json.loads((tmp_path / "bench" / "bench.json").read_text())["suites"][0]["tables"]


@pytest.mark.slow
def test_it_is_ablated(sgd: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctr.ablate.report.draw_all", lambda results: {})
    changes = {"embedding.optimizer": "sgd", "embedding.optimizer_options": {"max_norm": 0.5}}
    dataset, out = small_log(tmp_path), tmp_path / "runs" / "ablation"
    plan = open_small(dataset, out, variants={"sgd": {"set": changes}}, windows=1)
    assert ablate(plan, launch=lambda task: Inline(task, work), workers=1) == 0
    found = json.loads((out / "report" / "results.json").read_text())
    assert [v["name"] for v in found["variants"]] == ["base", "sgd"]
