"""`bag_sum` on a GPU: 16- and 32-bit rows, sums in float32, no atomics, no waiting for the device.

K entries, n bags, E width. Bags of J entries each are taken in tiles. Where lengths differ, one program sums
one bag; since one bag may hold a tenth of all entries (a frequent row, in the backward), the entries are also
cut into chunks at fixed positions, and a chunk that lies wholly inside one bag is summed by a program of its
own beforehand. The order in which entries are added follows from the bags alone, so runs agree bit for bit.
"""

# mypy: disable-error-code="no-untyped-def"
# The arguments of a kernel are pointers and numbers, for which Triton has no types.

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.unique_pooling.bags import Bags

_CHUNK = 256  # entries of a chunk
_STEP = 16  # entries read at once
_TILE = 64  # bags of J entries each, per program


def bag_sum(rows: Tensor, bags: Bags) -> Tensor:
    """Return A R, (n, E) in the dtype of rows; see `kernels.unique_pooling.ops`."""
    rows = rows.contiguous()
    width = rows.shape[1]
    out = rows.new_empty(bags.num_bags, width)
    block = min(128, triton.next_power_of_2(width))
    columns = triton.cdiv(width, block)
    if bags.starts is None:
        indices = bags.indices.contiguous()
        each = indices.numel() // bags.num_bags
        grid = (triton.cdiv(bags.num_bags, _TILE), columns)
        _equal[grid](rows, indices, out, bags.num_bags, width, EACH=each, TILE=_TILE, BLOCK=block)
        return out
    entries = bags.indices.numel()
    chunks = entries // _CHUNK
    partial = torch.empty(max(1, chunks), width, dtype=torch.float32, device=rows.device)
    weighted = bags.weights is not None
    weights = bags.weights if weighted else rows  # not read then
    read = (rows, bags.indices, weights)
    sizes = {"WEIGHTED": weighted, "CHUNK": _CHUNK, "STEP": _STEP, "BLOCK": block}
    if chunks:
        whole = _whole_chunks(bags.starts, chunks)
        _chunks[(chunks, columns)](*read, whole, partial, width, **sizes)
    _segments[(bags.num_bags, columns)](*read, bags.starts, partial, out, width, **sizes)
    return out


def _whole_chunks(starts: Tensor, chunks: int) -> Tensor:
    """(chunks,) bool: whether all entries of a chunk belong to one bag."""
    first = torch.arange(chunks, device=starts.device, dtype=starts.dtype) * _CHUNK
    bag = torch.searchsorted(starts, first, right=True) - 1
    return starts[bag + 1] >= first + _CHUNK


@triton.jit
def _equal(rows, indices, out, bags, width, EACH: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr):
    bag = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = (bag < bags)[:, None] & (column < width)[None, :]
    total = tl.zeros((TILE, BLOCK), tl.float32)
    for j in range(EACH):
        row = tl.load(indices + bag * EACH + j, mask=bag < bags, other=0).to(tl.int64)
        total += tl.load(rows + row[:, None] * width + column[None, :], mask=inside, other=0).to(tl.float32)
    tl.store(out + bag[:, None] * width + column[None, :], total.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _sum_entries(
    rows, indices, weights, begin, end, width,
    WEIGHTED: tl.constexpr, STEP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Σ of the entries from begin to end, in float32, for the columns of this program."""
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for first in range(begin, end, STEP):
        entry = first + tl.arange(0, STEP)
        row = tl.load(indices + entry, mask=entry < end, other=0).to(tl.int64)
        inside = (entry < end)[:, None] & (column < width)[None, :]
        token = tl.load(rows + row[:, None] * width + column[None, :], mask=inside, other=0).to(tl.float32)
        if WEIGHTED:
            token *= tl.load(weights + entry, mask=entry < end, other=0).to(tl.float32)[:, None]
        total += tl.sum(token, axis=0)
    return total


@triton.jit
def _chunks(
    rows, indices, weights, whole, partial, width,
    WEIGHTED: tl.constexpr, CHUNK: tl.constexpr, STEP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    chunk = tl.program_id(0).to(tl.int64)
    if tl.load(whole + chunk):
        begin = chunk * CHUNK
        total = _sum_entries(rows, indices, weights, begin, begin + CHUNK, width, WEIGHTED, STEP, BLOCK)
        column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        tl.store(partial + chunk * width + column, total, mask=column < width)


@triton.jit
def _segments(
    rows, indices, weights, starts, partial, out, width,
    WEIGHTED: tl.constexpr, CHUNK: tl.constexpr, STEP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    bag = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    begin = tl.load(starts + bag).to(tl.int64)
    end = tl.load(starts + bag + 1).to(tl.int64)
    # The entries before the first whole chunk, the whole chunks, the entries behind the last one.
    head = tl.minimum(end, (begin + CHUNK - 1) // CHUNK * CHUNK)
    tail = tl.maximum(head, end // CHUNK * CHUNK)
    total = _sum_entries(rows, indices, weights, begin, head, width, WEIGHTED, STEP, BLOCK)
    for chunk in range(head // CHUNK, tail // CHUNK):
        total += tl.load(partial + chunk * width + column, mask=column < width, other=0)
    total += _sum_entries(rows, indices, weights, tail, end, width, WEIGHTED, STEP, BLOCK)
    tl.store(out + bag * width + column, total.to(out.dtype.element_ty), mask=column < width)
