"""Adapters on a finished run: it starts as that run, only adapters learn, and it stands alone afterwards."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ctr.build import build_model
from ctr.checkpoint.checkpoint import load_latest
from ctr.config import AdapterConfig, RunConfig
from ctr.errors import CheckpointError
from ctr.models.registry import model_config
from ctr.runs.directory import RunDir
from ctr.training.lora import add_adapters
from features.errors import ConfigError
from pipelines.predict import predict
from pipelines.runs import open_run
from pipelines.train import train
from tests.ctr import batches
from tests.ctr.tiny_run import tiny_config, tiny_dataset

# Asked without importing it, which takes seconds.
pytestmark = pytest.mark.skipif(find_spec("peft") is None, reason="needs requirements/lora.txt")


def make(**encoder: str) -> nn.Module:
    config = model_config(d_model=12, heads=2, queries={"view": 2}, encoder=encoder)
    return build_model(batches.manifest(), config, dim=batches.DIM, seed=1).double()


@pytest.mark.parametrize("encoder", [{"kind": "transformer"}, {"kind": "library", "architecture": "llama"}])
def test_adapters_start_as_nothing_and_every_one_is_read(encoder: dict[str, str]) -> None:
    plain, adapted = make(**encoder), make(**encoder)
    add_adapters(adapted, AdapterConfig(base="runs/base", rank=2), seed=3)
    batch, rows = batches.make_batch(), batches.make_rows()
    logits = adapted(batch, rows)
    torch.testing.assert_close(logits, plain(batch, rows), atol=1e-12, rtol=1e-12)
    logits.square().sum().backward()
    learned = {name: p for name, p in adapted.named_parameters() if p.requires_grad}
    assert learned and all(".lora_" in name for name in learned)
    outer = {name: p.grad for name, p in learned.items() if ".lora_B." in name}
    assert [name for name, gradient in outer.items() if gradient is None or not gradient.any()] == []


@pytest.mark.parametrize("sequence", [{"kind": "din"}, {"kind": "weighted_pooling", "score": "bilinear"}])
def test_every_adapter_of_a_side_is_read(sequence: dict[str, str]) -> None:
    config = model_config(kind="grid", d_model=12, heads=2, sequence=sequence)
    model = build_model(batches.manifest(), config, dim=batches.DIM, seed=1).double()
    add_adapters(model, AdapterConfig(base="runs/base", rank=2), seed=3)
    model(batches.make_batch(), batches.make_rows()).square().sum().backward()
    outer = {name: p.grad for name, p in model.named_parameters() if ".lora_B." in name}
    assert (
        outer and [name for name, gradient in outer.items() if gradient is None or not gradient.any()] == []
    )


def weights(config: RunConfig) -> dict[str, Tensor]:
    checkpoint = load_latest(Path(config.run) / "checkpoints")
    assert checkpoint is not None
    names = [name for name in checkpoint.tensors if name.startswith("model/")]
    return {name.removeprefix("model/"): checkpoint.tensors[name] for name in names}


def test_a_run_that_adapts_keeps_the_weights_of_its_base(tmp_path: Path) -> None:
    dataset = tiny_dataset(tmp_path)
    base = tiny_config(dataset, tmp_path / "base", "train.epochs=1")
    train(base)
    run = tmp_path / "adapted"
    options = [f"lora.base={base.run}", "lora.rank=2", "train.checkpoint_every=2", "seed=5"]
    config = tiny_config(dataset, run, *options)
    train(config)
    before, after = weights(base), weights(config)
    shared = {key.replace(".base_layer.", "."): value for key, value in after.items() if ".lora_" not in key}
    assert shared.keys() == before.keys()
    assert all(torch.equal(shared[key], before[key]) for key in before)
    assert all(value.any() for key, value in after.items() if ".lora_B." in key)
    Path(base.run).rename(tmp_path / "gone")
    with RunDir.open(run, create=False) as opened:
        assert predict(opened, open_run(opened), "test")[1] > 0
    with pytest.raises(CheckpointError, match=r"lora\.base must be a run with a checkpoint"):
        train(tiny_config(dataset, tmp_path / "orphan", *options))


def test_wrong_adapters_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"linear maps of the model, got 'attention'; it has .*head"):
        add_adapters(make(), AdapterConfig(base="b", targets=["attention"]), seed=1)
    dataset = tiny_dataset(tmp_path)
    base = tiny_config(dataset, tmp_path / "base", "train.max_steps=1")
    train(base)
    other = tiny_config(dataset, tmp_path / "run", f"lora.base={base.run}", "model.layers=2")
    with pytest.raises(CheckpointError, match=r"model\.layers: expected 2, found 1"):
        train(other)
    assert not Path(other.run).exists()
