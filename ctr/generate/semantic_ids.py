"""Items as semantic IDs: residual k-means over item embeddings, so that similar items begin alike.

    embedding ─ nearest centre of level 0 ─► rest ─ nearest centre of level 1 ─► … ; a last level tells apart
    the items of equal codes. Every level has tokens of its own: 0 is padding, 1 begins a sequence.

I items (rows of the item table), C tokens of one item (levels, the last one included), E embedding width.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from features.durable import canonical_json, replace_file
from features.errors import ConfigError, DataError

PAD, BOS, FIRST = 0, 1, 2
_TENSORS, _FACTS = "semantic-ids.safetensors", "semantic-ids.json"


@dataclass(frozen=True)
class SemanticIds:
    """The tokens of every item.

    Args:
        tokens: (I, C) int64; a row of `PAD` for what is no item, such as the row of missing values.
        vectors: (I, E) float32, the embeddings that the codes come from.
        sizes: codes of each level, the last level included.
        source: where the embeddings come from, as JSON data.
    """

    tokens: Tensor
    vectors: Tensor
    sizes: list[int]
    source: dict[str, Any]

    @property
    def length(self) -> int:
        """C."""
        return len(self.sizes)

    @property
    def vocabulary(self) -> int:
        """Tokens in all."""
        return FIRST + sum(self.sizes)

    @property
    def items(self) -> Tensor:
        """Rows of the items, ascending."""
        return (self.tokens[:, 0] != PAD).nonzero()[:, 0]

    def digest(self) -> str:
        """sha256 over the tokens."""
        return hashlib.sha256(self.tokens.numpy().tobytes()).hexdigest()


def make_semantic_ids(
    vectors: Tensor, codes: list[int], *, first: int, seed: int, source: dict[str, Any]
) -> SemanticIds:
    """Code the rows of an item table.

    Each level clusters what the levels before leave over: r_0 = x, c_l = nearest centre of r_l,
    r_{l+1} = r_l − centre. Items of equal codes are numbered in the order of their rows.

    Source: TIGER (arXiv 2305.05065), section 3.1.
    Differs from the paper: k-means level by level, in place of a trained quantiser.

    Args:
        vectors: (I, E).
        codes: clusters of each level; at most as many are made as there are items.
        first: rows before it are no items.
        seed: of the clustering.
        source: kept as it is.

    Raises:
        ConfigError: there is no item.
    """
    rest = vectors[first:].double().numpy()
    if not len(rest):
        raise ConfigError(
            f"ids.table must hold items, got a table of {len(vectors)} rows, {first} of them none"
        )
    found = []
    for level, size in enumerate(codes):
        labels, centres = _cluster(rest, min(size, len(rest)), seed=seed + level)
        rest = rest - centres[labels]
        found.append(labels)
    found.append(_rank_among_equals(np.stack(found, axis=1)))
    sizes = [*(min(size, len(rest)) for size in codes), int(found[-1].max()) + 1]
    offsets = FIRST + np.cumsum([0, *sizes[:-1]])
    tokens = torch.full((len(vectors), len(sizes)), PAD, dtype=torch.int64)
    tokens[first:] = torch.from_numpy(np.stack(found, axis=1) + offsets)
    return SemanticIds(tokens, vectors.float(), sizes, source)


def _cluster(points: np.ndarray, size: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Label of each point, and the centres."""
    from sklearn.cluster import KMeans

    distinct = len(np.unique(points, axis=0))  # beyond them a centre would be empty, which sklearn warns of
    fitted = KMeans(n_clusters=min(size, distinct), n_init=1, max_iter=100, random_state=seed).fit(points)
    return fitted.labels_.astype(np.int64), fitted.cluster_centers_


def _rank_among_equals(codes: np.ndarray) -> np.ndarray:
    """The number of each row among the equal rows before it.

    Example:
        >>> _rank_among_equals(np.array([[1, 2], [1, 3], [1, 2]])).tolist()
        [0, 0, 1]
    """
    _, cell = np.unique(codes, axis=0, return_inverse=True)
    order = np.argsort(cell.reshape(-1), kind="stable")
    starts = np.searchsorted(cell.reshape(-1)[order], cell.reshape(-1))
    rank = np.empty(len(codes), dtype=np.int64)
    rank[order] = np.arange(len(codes))
    return rank - starts


def save_semantic_ids(folder: Path, ids: SemanticIds) -> None:
    """Write the IDs into a folder; the facts with the hash of the tensors come last."""
    folder.mkdir(parents=True, exist_ok=True)
    data = save({"tokens": ids.tokens, "vectors": ids.vectors.contiguous()})
    replace_file(folder / _TENSORS, data)
    facts = {"sizes": ids.sizes, "source": ids.source, "sha256": hashlib.sha256(data).hexdigest()}
    replace_file(folder / _FACTS, canonical_json(facts))


def load_semantic_ids(folder: Path) -> SemanticIds | None:
    """Read what `save_semantic_ids` wrote; None if nothing was written.

    Raises:
        DataError: a file is missing or altered.
    """
    if not (folder / _FACTS).is_file():
        return None
    try:
        facts = json.loads((folder / _FACTS).read_text())
        found = hashlib.sha256((folder / _TENSORS).read_bytes()).hexdigest()
        if found != facts["sha256"]:
            raise ValueError(f"sha256 of {_TENSORS} must be {facts['sha256']}, is {found}")
        tensors = load_file(folder / _TENSORS)
        return SemanticIds(tensors["tokens"], tensors["vectors"], facts["sizes"], facts["source"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder} must hold intact semantic IDs: {error}; train anew elsewhere") from None
