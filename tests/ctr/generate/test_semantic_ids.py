"""Semantic IDs: similar items begin alike, equal ones are told apart; the trie holds exactly the items."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from ctr.generate.semantic_ids import (
    FIRST,
    PAD,
    SemanticIds,
    load_semantic_ids,
    make_semantic_ids,
    save_semantic_ids,
)
from ctr.generate.trie import DEAD, Trie
from features.errors import ConfigError, DataError


def made(seed: int = 0) -> SemanticIds:
    """Four far-away clusters of two near pairs each, and two equal items; rows 0 and 1 are none."""
    centres = torch.tensor([[10.0, 0], [-10, 0], [0, 10], [0, -10]]).repeat_interleave(4, 0)
    pairs = torch.tensor([[1.0, 1], [1.01, 1], [-1, -1], [-1, -1.01]]).repeat(4, 1)
    items = torch.cat([centres + pairs, (centres + pairs)[:1]])
    return make_semantic_ids(
        torch.cat([torch.zeros(2, 2), items]), [4, 2], first=2, seed=seed, source={"a": 1}
    )


def test_levels_cluster_what_the_levels_before_leave() -> None:
    ids = made()
    codes = ids.tokens[2:18].reshape(4, 4, -1)
    assert (ids.tokens[:2] == PAD).all() and ids.items.tolist() == list(range(2, 19))
    assert len(codes[:, :, 0].unique()) == 4 and (codes[:, :, 0] == codes[:, :1, 0]).all()
    assert (codes[:, 0, 1] == codes[:, 1, 1]).all() and (codes[:, 0, 1] != codes[:, 2, 1]).all()


def test_tokens_differ_between_items_and_between_levels() -> None:
    ids = made()
    assert len(ids.tokens[2:].unique(dim=0)) == 17
    offsets = [FIRST, FIRST + 4, FIRST + 6]
    assert ids.sizes[:2] == [4, 2] and ids.sizes[2] == 3 and ids.vocabulary == 11
    for level, (offset, size) in enumerate(zip(offsets, ids.sizes, strict=True)):
        assert ids.tokens[2:, level].min() == offset and ids.tokens[2:, level].max() == offset + size - 1


def test_same_seed_same_ids_more_clusters_than_items() -> None:
    assert made().digest() == made().digest()
    few = make_semantic_ids(torch.rand(4, 3), [64, 64], first=1, seed=0, source={})
    assert few.sizes[0] == 3 and len(few.tokens[1:].unique(dim=0)) == 3
    with pytest.raises(ConfigError, match="must hold items"):
        make_semantic_ids(torch.zeros(2, 3), [2], first=2, seed=0, source={})


def test_saved_and_verified(tmp_path: Path) -> None:
    ids = made()
    assert load_semantic_ids(tmp_path) is None
    save_semantic_ids(tmp_path, ids)
    found = load_semantic_ids(tmp_path)
    assert found is not None and found.digest() == ids.digest() and found.sizes == ids.sizes
    assert torch.equal(found.vectors, ids.vectors) and found.source == {"a": 1}
    file = tmp_path / "semantic-ids.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(DataError, match="sha256"):
        load_semantic_ids(tmp_path)


def test_trie_allows_what_some_item_has_and_nothing_else() -> None:
    """Every beginning over the whole vocabulary, beginnings of a second item too."""
    ids = made()
    codes = ids.tokens[ids.items]
    trie = Trie(ids.items, codes, vocabulary=ids.vocabulary)
    known = [tuple(code) for code in codes.tolist()]
    for length in range(3):
        for prefix in product(range(ids.vocabulary), repeat=length):
            follow = {code[length] for code in known if code[:length] == prefix}
            for before in ([], known[3]):
                node = trie.walk(torch.tensor([[*before, *prefix]], dtype=torch.int64))
                assert set((trie.keys[trie.children(node)[1]] % trie.vocabulary).tolist()) == follow
    every = torch.tensor(list(product(range(ids.vocabulary), repeat=3)))
    found = {
        tuple(t): i for t, i in zip(every.tolist(), trie.items(every).tolist(), strict=True) if i != DEAD
    }
    assert found == dict(zip(known, ids.items.tolist(), strict=True))


def test_prefix_means() -> None:
    ids = made()
    codes, values = ids.tokens[ids.items], torch.rand(2, len(ids.items))
    trie = Trie(ids.items, codes, vocabulary=ids.vocabulary)
    means = trie.prefix_means(values, ids.items)
    for code in codes.tolist():
        for length in range(4):
            below = [i for i, other in enumerate(codes.tolist()) if other[:length] == code[:length]]
            # `walk` would begin anew behind a whole item
            node = torch.zeros(1, dtype=torch.int64)
            for token in code[:length]:
                node = trie.step(node, torch.tensor([token]))
            np.testing.assert_allclose(means[:, node[0]], values[:, below].mean(1), rtol=1e-5)


def test_equal_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="must differ"):
        Trie(torch.tensor([1, 2]), torch.tensor([[3, 4], [3, 4]]), vocabulary=5)
