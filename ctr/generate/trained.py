"""Trained generators, ready to decode, and the decoder of a strategy."""

from __future__ import annotations

from pathlib import Path

import torch

from ctr.generate.config import StrategyConfig, load_generate_config
from ctr.generate.decoding import Decoder
from ctr.generate.model import NextBehaviour
from ctr.generate.semantic_ids import SemanticIds, load_semantic_ids
from ctr.generate.training import FOLDER, best_checkpoint, build_generator
from features.dataset import Manifest
from features.errors import ConfigError


def open_ids(run: Path) -> SemanticIds:
    """The semantic IDs of a generator's run.

    Raises:
        ConfigError: it is no such run.
    """
    ids = load_semantic_ids(run / FOLDER)
    if ids is None or not (run / "config.yaml").is_file():
        raise ConfigError(f"{run} must be the run of a generator; train one with: ctr generate train CONFIG")
    return ids


def open_generator(run: Path, manifest: Manifest) -> tuple[NextBehaviour, SemanticIds]:
    """The best weights of a generator's run, averaged where it keeps averages, on the CPU.

    Raises:
        ConfigError: no such run.
        CheckpointError: it has no checkpoint, or one of another data set.
    """
    ids = open_ids(run)
    config = load_generate_config(run / "config.yaml")
    state = build_generator(config, manifest, ids, torch.device("cpu"))
    state.restore(best_checkpoint(run), weights_only=True)
    model = state.model
    assert isinstance(model, NextBehaviour)
    if state.averaged is not None:
        model.load_state_dict(state.averaged.average, strict=False)
    return model.eval(), ids


def make_decoder(run: Path, strategy: StrategyConfig, manifest: Manifest) -> Decoder:
    """The decoder of a strategy, with all the models that it names.

    Raises:
        ConfigError: one of them has other semantic IDs.
    """
    model, ids = open_generator(run, manifest)

    def another(name: str) -> NextBehaviour:
        other, codes = open_generator(Path(name), manifest)
        if codes.digest() != ids.digest():
            raise ConfigError(
                f"models of one strategy must share their semantic IDs, {name} and {run} do not"
            )
        return other

    return Decoder(
        model,
        ids,
        strategy,
        ensemble=[another(name) for name in strategy.ensemble],
        amateur=another(strategy.contrastive.amateur) if strategy.contrastive else None,
        draft=another(strategy.draft) if strategy.draft else None,
    )
