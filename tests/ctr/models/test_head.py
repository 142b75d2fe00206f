"""What the head leaves of its tokens."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from ctr.blocks.request_map import RequestMap
from ctr.models.head import Head, NormOf
from ctr.models.registry import model_config
from tests.ctr import batches


@pytest.mark.parametrize("norm_of", get_args(NormOf))
def test_how_long_a_token_is_counts_if_all_are_normed_together(norm_of: NormOf) -> None:
    """A sum over events, as DIN's, is long where many events weigh much."""
    torch.manual_seed(1)
    head = Head(3, 6, model_config(kind="grid", d_model=6), batches.manifest(), norm_of=norm_of).double()
    batch = batches.make_batch()
    requests = RequestMap.build(batch.request_index, requests=batch.num_requests)
    tokens = torch.randn(batch.num_rows, 3, 6, dtype=torch.float64)
    longer = tokens * torch.tensor([5.0, 1.0, 1.0], dtype=torch.float64)[:, None]
    with torch.no_grad():
        moved = (head(tokens, batch, requests) - head(longer, batch, requests)).abs().max()
    assert moved > 0.01 if norm_of == "all" else moved < 1e-3
