"""Vectors of the values of linked tables: a truncated SVD of the shifted PMI between them.

    M(c, v) = max(0, PMI(c, v) − log k)       W = √p(c) · M · √p(v) ≈ U S Vᵀ
    x(c) = U_c √S / √p(c)                     y(v) = V_v √S / √p(v)            so that ⟨x(c), y(v)⟩ ≈ M(c, v)

All candidates' tables stand below one another and all histories' tables side by side, so all lie in one
space. √p weighs a pair by how often its values occur: what is rare bends the space less.

Source: Levy and Goldberg, Neural Word Embedding as Implicit Matrix Factorization (NeurIPS 2014): SVD of
shifted positive PMI. Differs from it: weights √p, and a prior that draws rare pairs to 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import svds

from ctr.cooccurrence.links import Link, MeetingCounts

_SMALL = 2**20  # entries of a matrix that is decomposed whole
Weighted = tuple[np.ndarray, np.ndarray]  # vectors (rows, k), and p (rows,)


def linked_vectors(
    links: Sequence[Link], *, dim: int, prior: float, shift: float, seed: int
) -> dict[str, Weighted]:
    """Vectors of every linked table.

    Args:
        links: pairs of tables.
        dim: most dimensions of a vector.
        prior, shift: of the PMI; k.
        seed: of the decomposition of large matrices.

    Returns:
        table → vectors (rows, k), k at most dim, 0 for values that did not occur, and how frequent each is.
    """
    rows, columns = (
        _blocks([(getattr(x, side), x.pairs.shape[axis]) for x in links])
        for axis, side in enumerate(("candidate", "history"))
    )
    shape = (sum(size for _, size in rows.values()), sum(size for _, size in columns.values()))
    weight = [np.zeros(size) for size in shape]
    entries = []
    for link in links:
        low = (rows[link.candidate][0], columns[link.history][0])
        for axis, margin in enumerate(link.pairs.margins()):
            weight[axis][low[axis] : low[axis] + len(margin)] += margin / max(link.pairs.total, 1)
        entries.append((low, link.pairs, _shifted(link.pairs, prior, shift)))
    root = [np.sqrt(w) for w in weight]
    at = [np.concatenate([low[a] + (p.row, p.column)[a] for low, p, _ in entries]) for a in (0, 1)]
    values = np.concatenate([m for _, _, m in entries]) * root[0][at[0]] * root[1][at[1]]
    matrix = sparse.coo_matrix((values, (at[0], at[1])), shape=shape).tocsr()
    both = _decomposed(matrix, dim, seed)
    found: dict[str, Weighted] = {}
    for axis, blocks in enumerate((rows, columns)):
        vectors = both[axis] / np.where(root[axis] > 0, root[axis], np.inf)[:, None]
        for table, (low_row, size) in blocks.items():
            part = slice(low_row, low_row + size)
            found.setdefault(table, (vectors[part], weight[axis][part]))
    return found


def _blocks(tables: list[tuple[str, int]]) -> dict[str, tuple[int, int]]:
    """table → its first row among all, and its rows."""
    found: dict[str, tuple[int, int]] = {}
    for name, size in tables:
        found.setdefault(name, (sum(s for _, s in found.values()), size))
    return found


def _shifted(pairs: MeetingCounts, prior: float, shift: float) -> np.ndarray:
    """M of the pairs that met."""
    return np.maximum(pairs.pmi(pairs.code, prior) - np.log(shift), 0.0)


def _decomposed(matrix: sparse.csr_matrix, dim: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """U √S and V √S of the largest singular values, each pair; the largest part is positive."""
    smaller = min(matrix.shape)
    if matrix.shape[0] * matrix.shape[1] <= _SMALL or smaller <= dim:
        left, size, right = np.linalg.svd(matrix.toarray(), full_matrices=False)
    else:
        start = np.random.default_rng(seed).standard_normal(smaller)
        left, size, right = svds(matrix, k=dim, v0=start)
    order = np.argsort(-size, kind="stable")[:dim]
    left, right, root = left[:, order], right[order].T, np.sqrt(size[order])
    sign = np.where(np.take_along_axis(left, np.abs(left).argmax(0)[None], 0) < 0, -1.0, 1.0)
    return left * sign * root, right * sign * root
