"""Encoders of the library inside the models: shared by candidates, recomputed, saved, resumed, refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ctr.build import build_model
from ctr.config import TrainConfig
from ctr.models.registry import model_config
from ctr.training.speed import speed_up
from features.durable.faults import InjectedFault, injected
from features.errors import ConfigError
from pipelines.train import train
from tests.ctr import batches
from tests.ctr.reference.parity import assert_parity, scrambled
from tests.ctr.tiny_run import outcome_of, tiny_config, tiny_dataset

HYFORMER: dict[str, Any] = {"kind": "hyformer", "d_model": 12, "heads": 2, "queries": {"view": 2}}
TWO_STAGE: dict[str, Any] = {"kind": "two_stage", "d_model": 12, "heads": 2, "longer": {"num_queries": 3}}


def make(model: dict[str, Any], architecture: str, **changes: Any) -> nn.Module:
    encoder = {"kind": "library", "architecture": architecture}
    config = model_config(**model, encoder=encoder, **changes)
    return build_model(batches.manifest(), config, dim=batches.DIM, seed=1).double()


@pytest.mark.parametrize(
    ("model", "architecture"), [(HYFORMER, "bert"), (HYFORMER, "deepseek"), (TWO_STAGE, "t5")]
)
def test_shared_equals_requests_of_one_candidate(model: dict[str, Any], architecture: str) -> None:
    built, rows, batch = scrambled(make(model, architecture)), batches.make_rows(), batches.make_batch()
    got, want = built(batch, rows), built(batches.per_row(batch), rows)
    assert_parity([got], [want], built, list(rows.values()), tolerance=1e-6)


def test_a_merged_sequence_is_as_long_as_its_domains() -> None:
    changes = {"queries": {}, "default_queries": 3, "merge_sequences": True}
    built = make(HYFORMER | changes, "gpt2")
    table = built.layers[0].encoders[0].body.wpe.weight  # type: ignore[union-attr,index]
    assert table.shape == (20, 12)  # two domains of at most 10 events
    assert built(batches.make_batch(), batches.make_rows()).isfinite().all()


def test_one_seed_gives_one_model_whose_tensors_have_plain_names() -> None:
    one, other = make(HYFORMER, "llama").state_dict(), make(HYFORMER, "llama").state_dict()
    assert all(torch.equal(one[key], other[key]) for key in one)
    names = [key.removeprefix("layers.1.encoders.0.body.") for key in one if "layers.1.encoders.0" in key]
    projections = [f"layers.0.self_attn.{part}_proj.weight" for part in "qkvo"]
    assert set(projections) < set(names) and not [key for key in names if "embed" in key]


@pytest.mark.parametrize("architecture", ["bert", "gpt_oss"])
def test_recomputing_gives_the_same_bits(architecture: str) -> None:
    def outcome(recompute: bool) -> tuple[dict[str, Tensor], int]:
        model = make(HYFORMER, architecture, dropout=0.3)
        speed_up(model, TrainConfig(recompute=recompute))
        return batches.step_of(model)

    (plain, much), (again, little) = outcome(False), outcome(True)
    assert plain.keys() == again.keys() and little < much
    assert all(torch.equal(plain[key], again[key]) for key in plain)


def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(tmp_path: Path) -> None:
    dataset = tiny_dataset(tmp_path)
    options = ["model.encoder.kind=library", "model.encoder.architecture=modernbert", "model.dropout=0.2"]
    options += ["train.epochs=1", "train.checkpoint_every=2", "train.precision=bf16"]
    whole, broken = (tiny_config(dataset, tmp_path / name, *options) for name in ("whole", "broken"))
    train(whole)
    with injected("step:3:raise"), pytest.raises(InjectedFault):
        train(broken)
    train(broken)
    assert outcome_of(Path(broken.run)) == outcome_of(Path(whole.run))


@pytest.mark.parametrize(
    ("model", "encoder", "message"),
    [
        ({}, {"kind": "library"}, "kind library needs an architecture"),
        ({"d_model": 64, "heads": 5}, {"kind": "library", "architecture": "bert"}, "cannot build 'bert'"),
    ],
)
def test_what_cannot_be_built_is_refused(
    model: dict[str, Any], encoder: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        config = model_config(**model, encoder=encoder)
        build_model(batches.manifest(), config, dim=batches.DIM, seed=1)
