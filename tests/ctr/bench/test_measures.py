"""Calibration, FLOPs and memory: positive, exact, apart."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from ctr.bench import flops
from ctr.bench.calibration import calibrate, matmul_gflops
from ctr.bench.environment import describe
from ctr.bench.flops import count_flops
from ctr.bench.link import DelayedLink
from ctr.bench.memory import in_child, peak_rss
from ctr.bench.shape import Shape
from ctr.bench.synthetic import write_dataset
from ctr.bench.variants import VARIANTS
from ctr.bench.workload import bench_config
from ctr.blocks.encoders import AttentionEncoder
from ctr.blocks.fused import ROWS
from ctr.blocks.jagged import Jagged
from ctr.config import RunConfig
from ctr.errors import RetryableError
from kernels import jagged_attention
from kernels.position_wise import ops as position_wise
from tests.ctr.reference.flops import layer_flops


class Slow:
    """A sum that takes its time."""

    def wait(self) -> None:
        time.sleep(0.01)


def test_a_link_tells_how_long_somebody_stood_still_for_it() -> None:
    link = DelayedLink(seconds_per_byte=0.0, reduce=lambda _: Slow())
    transfers = [link(torch.zeros(1)), link(torch.zeros(1))]
    assert link.waited == 0.0
    for transfer in transfers:
        transfer.wait()
    assert link.waited >= 0.02  # a sleep is never shorter than asked for


def test_calibration_is_positive_and_names_its_threads() -> None:
    limits = calibrate(rounds=1, side=64, rows=500, uses=100)
    assert limits.threads == torch.get_num_threads()
    assert all(value > 0 for value in limits.as_dict().values()) and len(limits.as_dict()) == 6
    assert matmul_gflops(rounds=1, side=64) > 0


def test_the_environment_names_machine_and_versions() -> None:
    found = describe()
    assert found["torch"] == torch.__version__ and found["threads"] == str(torch.get_num_threads())
    assert all(isinstance(v, str) and v for v in found.values())
    assert {"cpu", "cores", "commit", "memory_gib"} <= found.keys()


@pytest.mark.parametrize("mask", [None, torch.ones(2, 1, 5, 7, dtype=torch.bool)])
def test_attention_on_the_cpu_counts(mask: torch.Tensor | None) -> None:
    query, key, value = (torch.randn(2, 4, n, 8, requires_grad=True) for n in (5, 7, 7))
    forward = 2 * 2 * 4 * 5 * 7 * 16
    assert count_flops(lambda: F.scaled_dot_product_attention(query, key, value, attn_mask=mask)) == forward
    both = count_flops(
        lambda: F.scaled_dot_product_attention(query, key, value, attn_mask=mask).sum().backward()
    )
    assert both == 3 * forward


@pytest.mark.parametrize("requests", [3, 48])
def test_an_encoder_costs_what_its_formula_says(requests: int, monkeypatch: pytest.MonkeyPatch) -> None:
    length, width, rows = 24, 32, []
    formula = flops._position_wise

    def counted(x: torch.Tensor, *rest: Any, **named: Any) -> int:
        rows.append(len(x))
        return formula(x, *rest, **named)

    counted._get_raw = True  # type: ignore[attr-defined]
    monkeypatch.setitem(flops._CPU_ATTENTION, position_wise.forward.overloadpacket, counted)
    encoder = AttentionEncoder(width, 4, hidden=4 * width)
    values = torch.randn(requests * length, width, requires_grad=True)
    sequence = Jagged.from_lengths(values, torch.tensor([length] * requests))
    assert count_flops(lambda: encoder(sequence)) == requests * layer_flops(length, width)
    both = count_flops(lambda: encoder(sequence).values.sum().backward())
    assert both == 3 * requests * layer_flops(length, width)
    compiled = values.shape[0] >= ROWS and jagged_attention.available(16, torch.device("cpu"))
    assert bool(rows) == compiled  # many rows go through the compiled networks, few through torch's products


def test_peak_memory_is_of_this_process() -> None:
    assert 2**24 < peak_rss() < 2**40


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    dataset = write_dataset(tmp_path / "set", replace(Shape().small(), requests=6))
    return bench_config(dataset, "LONGER", requests=3)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_case_in_a_process_of_its_own_does_not_report_its_parent(config: RunConfig) -> None:
    ballast = torch.ones(2**28, dtype=torch.uint8)  # touched, so resident here
    found = in_child(config, steps=2, threads=1, variant=VARIANTS[0].name)
    assert found["rows"] == 30 and found["peak"] >= found["loaded"] > 2**24
    assert ballast[0] and found["loaded"] < peak_rss()


def test_a_case_that_fails_is_told_with_its_last_words(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho first >&2\necho out of memory >&2\nexit 3\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(RetryableError, match="error: out of memory; free memory"):
        in_child(config, steps=1, threads=1)
