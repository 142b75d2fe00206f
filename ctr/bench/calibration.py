"""How fast this machine is right now: matrix products, copies and gathers with the threads in use.

Figures of two machines, or of one machine on two days, are compared after division by these.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from ctr.bench.timing import TimedCall, interleave

SIDE = 2048  # of the square matrices
GATHERED = 64  # floats of one gathered row


@dataclass(frozen=True)
class Calibration:
    """The machine's limits; each the best of the rounds, as a limit should be."""

    threads: int
    matmul_fp32: float  # GFLOP/s of a 2048³ product
    matmul_bf16: float
    copy: float  # GB/s, bytes read plus bytes written
    gather_small: float  # GB/s read, rows of 64 floats from a table that fits into the cache
    gather_large: float  # … from a table of 2 M rows

    def as_dict(self) -> dict[str, float]:
        """Plain data."""
        return asdict(self)


def calibrate(
    *, rounds: int = 7, side: int = SIDE, rows: int = 2_000_000, uses: int = 400_000
) -> Calibration:
    """Measure; about three seconds and 0.7 GB at the default sizes.

    Args:
        rounds: interleaved rounds; the fastest counts.
        side: of the matrices.
        rows: of the large table.
        uses: rows gathered at a time.
    """
    torch.manual_seed(0)
    jobs, amounts = _matrix_jobs(side)
    more, sizes = _memory_jobs(rows, uses)
    samples = interleave(jobs | more, rounds=rounds)
    best = {name: amount / samples[name].best / 1e9 for name, amount in (amounts | sizes).items()}
    return Calibration(threads=torch.get_num_threads(), **best)


def matmul_gflops(*, rounds: int = 3, side: int = SIDE) -> float:
    """fp32 GFLOP/s alone, in a fraction of a second: taken beside each suite, since the machine drifts."""
    job, amount = matrix_product(side)
    return amount / interleave({"product": job}, rounds=rounds)["product"].best / 1e9


def matrix_product(
    side: int = SIDE, dtype: torch.dtype = torch.float32, *, times: int = 1
) -> tuple[TimedCall, float]:
    """A product of two square matrices, `times` in a row, and its operations."""
    a, b = (torch.randn(side, side).to(dtype) for _ in range(2))
    out = torch.empty(side, side, dtype=dtype)

    def multiply() -> None:
        for _ in range(times):
            torch.mm(a, b, out=out)

    return multiply, times * 2.0 * side**3


def _matrix_jobs(side: int) -> tuple[dict[str, TimedCall], dict[str, float]]:
    """Products in both precisions, and their operations."""
    made = {
        "matmul_fp32": matrix_product(side),
        "matmul_bf16": matrix_product(side, torch.bfloat16),
    }
    return {name: job for name, (job, _) in made.items()}, {name: ops for name, (_, ops) in made.items()}


def _memory_jobs(rows: int, uses: int) -> tuple[dict[str, TimedCall], dict[str, float]]:
    """A copy and two gathers, and the bytes that count."""
    large, small = torch.zeros(rows, GATHERED), torch.zeros(2048, GATHERED)
    source, target = torch.zeros(uses, GATHERED), torch.empty(uses, GATHERED)

    def gather(table: Tensor) -> TimedCall:
        index = torch.randint(len(table), (uses,))
        return lambda: torch.index_select(table, 0, index, out=target)

    jobs: dict[str, TimedCall] = {
        "copy": lambda: target.copy_(source),
        "gather_small": gather(small),
        "gather_large": gather(large),
    }
    size = 4.0 * uses * GATHERED
    return jobs, {"copy": 2 * size, "gather_small": size, "gather_large": size}
