"""Embedding tables behind one interface: plain torch anywhere, TorchRec's FBGEMM kernels where installed.

Both engines start from the same weights, follow the same update rules and read each other's state.
"""

from __future__ import annotations

import torch

from ctr.config import EmbeddingConfig
from ctr.embedding.base import EmbeddingTables
from ctr.embedding.torch_engine import TorchTables
from ctr.versions import fbgemm_available

__all__ = ["EmbeddingTables", "make_tables"]


def make_tables(
    rows: dict[str, int], config: EmbeddingConfig, *, seed: int, device: torch.device | str = "cpu"
) -> EmbeddingTables:
    """Make one table of `config.dim` columns per entry of `rows`, filled with N(0, init_std²).

    A table's weights depend on the seed and its name, not on its place among the others. Row 0 (missing) and
    the unknown rows are learned like every other row.

    Args:
        rows: table → number of rows, as in the manifest.
        config: width, optimizer and engine; `auto` takes FBGEMM where it is installed and has the optimizer.
        seed: of the weights.
        device: where the tables live.

    Raises:
        ConfigError: engine fbgemm, but it is not installed or lacks the optimizer on this device.

    Example:
        >>> tables = make_tables({"item": 10}, EmbeddingConfig(dim=4), seed=1)
        >>> tables.lookup({"item": torch.tensor([0, 3])})["item"].shape
        torch.Size([2, 4])
    """
    device = torch.device(device)
    if _choose_engine(rows, config, device) == "torch":
        return TorchTables(rows, config, seed=seed, device=device)
    from ctr.embedding.fbgemm_engine import FbgemmTables

    return FbgemmTables(rows, config, seed=seed, device=device)


def _choose_engine(rows: dict[str, int], config: EmbeddingConfig, device: torch.device) -> str:
    if config.engine != "auto":
        return config.engine
    has_optimizer = config.optimizer == "rowwise_adagrad" or device.type == "cuda"
    return "fbgemm" if rows and has_optimizer and fbgemm_available() else "torch"
