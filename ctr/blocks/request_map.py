"""The candidates of each request packed side by side, so that they share the events of the request.

    request_index = [0 0 1 2 2 2]      rows x0 … x5, one per candidate

    pack:    request 0: x0 x1 -        unpack: the inverse
             request 1: x2 -  -        to_rows: a value per request, repeated for its candidates
             request 2: x3 x4 x5

B candidates (rows), R requests, C candidates of one request, N tokens of one candidate, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ctr.blocks.jagged import offsets_of
from kernels.plain import exporting


@dataclass(frozen=True, eq=False)
class RequestMap:
    """Maps candidates to their requests; built once per batch with `RequestMap.build`.

    Args:
        request_index: (B,) int64, non-decreasing: the request of each candidate.
        slots: (B,) int64: row of each candidate in the packed (R · C) layout.
        requests: R.
        max_candidates: C, the largest number of candidates of one request (at least 1).

    Example:
        >>> requests = RequestMap.build(torch.tensor([0, 0, 1]), requests=2)
        >>> requests.pack(torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1)).squeeze(-1)
        tensor([[1., 2.],
                [3., 0.]])
    """

    request_index: Tensor
    slots: Tensor
    requests: int
    max_candidates: int

    @classmethod
    def build(cls, request_index: Tensor, *, requests: int) -> RequestMap:
        """Check `request_index` (B,) and count the candidates of each of the R requests.

        Raises:
            ValueError: when the rows of a request are not contiguous or an index is out of range.
        """
        if exporting():  # every request has as many candidates: no value is looked at
            slots = torch.arange(request_index.shape[0], device=request_index.device)
            return cls(request_index, slots, requests, request_index.shape[0] // requests)
        _check(request_index, requests)
        counts = torch.bincount(request_index, minlength=requests)
        most = max(int(counts.max()) if requests else 0, 1)
        rank = torch.arange(request_index.numel(), device=counts.device) - offsets_of(counts)[request_index]
        return cls(request_index, request_index * most + rank, requests, most)

    @property
    def candidates(self) -> int:
        """B."""
        return self.request_index.numel()

    @property
    def is_full(self) -> bool:
        """Whether every request has C candidates, so that packing is a view."""
        return self.candidates == self.requests * self.max_candidates

    def to_rows(self, per_request: Tensor) -> Tensor:
        """(R, ...) to (B, ...): the request's value, repeated for each of its candidates."""
        if self.is_full and self.max_candidates == 1:
            return per_request
        return per_request.index_select(0, self.request_index)

    def pack(self, rows: Tensor) -> Tensor:
        """(B, N, D) to (R, C · N, D): the tokens of a request's candidates in one row, zeros behind."""
        _, tokens, width = rows.shape
        if not self.is_full:
            empty = rows.new_zeros(self.requests * self.max_candidates, tokens, width)
            rows = empty.index_copy(0, self.slots, rows)
        return rows.reshape(self.requests, self.max_candidates * tokens, width)

    def unpack(self, packed: Tensor) -> Tensor:
        """(R, C · N, D) to (B, N, D): the inverse of `pack`."""
        requests, tokens, width = packed.shape
        rows = packed.reshape(requests * self.max_candidates, tokens // self.max_candidates, width)
        return rows if self.is_full else rows.index_select(0, self.slots)


def _check(request_index: Tensor, requests: int) -> None:
    if request_index.dtype != torch.int64 or request_index.dim() != 1:
        came = f"{request_index.dtype} {tuple(request_index.shape)}"
        raise ValueError(f"request_index must be int64 of shape (B,), got {came}")
    if request_index.numel() == 0:
        return
    if bool((request_index.diff() < 0).any()):
        raise ValueError(
            "request_index must not decrease (the candidates of one request stand together), got "
            f"{request_index.tolist()[:10]}…; sort the rows by request"
        )
    low, high = int(request_index[0]), int(request_index[-1])
    if low < 0 or high >= requests:
        raise ValueError(f"request_index must lie in [0, {requests}) (the requests), got {low} to {high}")
