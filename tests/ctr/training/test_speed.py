"""Recomputed activations and compiled blocks: the same bits, or the same values within rounding."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ctr.blocks import fused
from ctr.blocks.layers import FeedForward
from ctr.build import build_model
from ctr.config import TrainConfig
from ctr.models.registry import model_config
from ctr.training import speed
from features.errors import ConfigError
from tests.ctr import batches

MODELS: dict[str, dict[str, Any]] = {
    "hyformer": {"d_model": 12, "heads": 2, "queries": {"view": 2}, "dropout": 0.3},
    "longer": {"kind": "longer", "d_model": 12, "heads": 2, "longer": {"num_queries": 3}, "dropout": 0.3},
    "two_stage": {"kind": "two_stage", "d_model": 12, "heads": 2, "dropout": 0.3},
    "one_trans": {"kind": "one_trans", "d_model": 12, "heads": 2, "layers": 3, "dropout": 0.3},
}


def outcome(options: dict[str, Any], **switches: bool) -> tuple[dict[str, Tensor], int]:
    """What a step gives and keeps."""
    model = build_model(batches.manifest(), model_config(**options), dim=batches.DIM, seed=1).double()
    speed.speed_up(model, TrainConfig(**switches))
    return batches.step_of(model)


@pytest.mark.parametrize("name", MODELS)
def test_recomputing_gives_the_same_bits_and_keeps_less(name: str) -> None:
    (plain, much), (again, little) = outcome(MODELS[name]), outcome(MODELS[name], recompute=True)
    assert plain.keys() == again.keys() and little < much
    assert all(torch.equal(plain[key], again[key]) for key in plain)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch, inside its own compiler
def test_compiling_gives_the_same_values() -> None:
    options = MODELS["hyformer"] | {"dropout": 0.0}
    (plain, _), (compiled, _) = outcome(options), outcome(options, compile=True)
    assert plain.keys() == compiled.keys()
    for key, value in plain.items():
        torch.testing.assert_close(compiled[key], value, atol=1e-9, rtol=1e-9)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch, inside its own compiler
def test_one_graph_serves_few_and_many_rows() -> None:
    network = FeedForward(16)
    speed.speed_up(nn.Sequential(network), TrainConfig(compile=True))
    network(torch.randn(2 * fused.ROWS, 16))
    with torch.compiler.set_stance("fail_on_recompile"):
        network(torch.randn(fused.ROWS // 2, 16))


def test_compile_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="needs a C\\+\\+ compiler, 'no-such-compiler'"):
            outcome(MODELS["hyformer"], compile=True)


FAULTS = """
import resource, torch
from ctr.training.speed import keep_freed_memory
kept = keep_freed_memory()
for _ in range(40):  # up to ten until what else is allocated no longer splits the place
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensor = torch.ones(16 * 2**20)  # 64 MB, 16,384 pages
    del tensor
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
@pytest.mark.parametrize(("setting", "keeps"), [({}, True), ({"MALLOC_ARENA_MAX": "2"}, False)])
def test_freed_memory_is_used_again_unless_the_user_says_otherwise(
    setting: dict[str, str], keeps: bool
) -> None:
    names = [name for name in os.environ if name.startswith(("MALLOC_", "GLIBC_", "THP_"))]
    plain = {name: value for name, value in os.environ.items() if name not in names}
    told = subprocess.run(
        [sys.executable, "-c", FAULTS], env=plain | setting, capture_output=True, text=True, check=True
    )
    kept, faults = told.stdout.split()
    assert kept == str(keeps)
    assert (int(faults) < 1000) == keeps
