"""Tokenizers against plain loops over rows and events."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from ctr.batch import SequenceBatch
from ctr.blocks.jagged import Jagged
from ctr.blocks.request_map import RequestMap
from ctr.models.registry import model_config
from ctr.tokens.events import MergedOrder, SequenceTokenizer, SequenceTokenizers
from ctr.tokens.features import make_tokenizer, piecewise
from tests.ctr import batches
from tests.ctr.reference import tokens as plain
from tests.ctr.reference.parity import assert_parity, rand, scrambled

BATCH, MANIFEST, D = batches.make_batch(), batches.manifest(), 4
VIEW = MANIFEST.domains["view"]


def requests() -> RequestMap:
    return RequestMap.build(BATCH.request_index, requests=BATCH.num_requests)


def ns_tokenizer(**options: Any) -> nn.Module:
    config = model_config(d_model=D, **options)
    return scrambled(make_tokenizer(MANIFEST, config, dim=batches.DIM))


def view_tokenizer(**options: Any) -> SequenceTokenizer:
    """The tokenizer of `view`: three IDs (one a weighted list) and a dense vector beside the gap."""
    module = scrambled(SequenceTokenizer(VIEW, model_config(d_model=D, **options), dim=batches.DIM))
    assert isinstance(module, SequenceTokenizer)
    return module


@pytest.mark.parametrize("hidden", [0, 6])
def test_semantic_groups(hidden: int) -> None:
    """Groups of one level or both; lists, weighted lists, empty ones, dense values."""
    module, rows = ns_tokenizer(tokenizer={"hidden": hidden}), batches.make_rows()
    got = module(BATCH, rows, requests())
    want = [plain.semantic_tokens(module, MANIFEST, BATCH, rows, row) for row in range(BATCH.num_rows)]
    assert_parity([got], [torch.stack(want)], module, [rows[t] for t in ("user", "item", "tag")])
    assert module.candidate_tokens() == [1, 2]


def test_dense_values_in_pieces() -> None:
    """In front of, at, inside and behind the pieces of [-2, 2]; the value itself comes first."""
    values = torch.tensor([[-3.0, -2.0], [-0.5, 0.0], [1.0, 9.0]])
    expected = [
        [-3, 0, 0, 0, 0, -2, 0, 0, 0, 0],
        [-0.5, 1, 0.5, 0, 0, 0, 1, 1, 0, 0],
        [1, 1, 1, 1, 0, 9, 1, 1, 1, 1],
    ]
    assert piecewise(values, 4).tolist() == expected
    assert torch.equal(piecewise(values, 0), values)


@pytest.mark.parametrize("tokens", [1, 4, 6, 40])
def test_automatic_split(tokens: int) -> None:
    """4 · 5 + 2 + 1 = 23 wide: one piece, 4 of 6 with a zero behind, 6 of 4, 40 of 1 with 17 zeros."""
    module, rows = ns_tokenizer(tokenizer={"kind": "auto", "tokens": tokens}), batches.make_rows()
    got = module(BATCH, rows, requests())
    want = [plain.auto_tokens(module, MANIFEST, BATCH, rows, row) for row in range(BATCH.num_rows)]
    assert got.shape == (BATCH.num_rows, tokens, D)
    assert_parity([got], [torch.stack(want)], module, [rows[t] for t in ("user", "item", "tag")])
    assert module.candidate_tokens() == list(range(tokens))


@pytest.mark.parametrize("options", [{}, {"positions": 4}, {"time_buckets": 5, "norm": "rms"}])
def test_events(options: dict[str, Any]) -> None:
    """A sum of one map per part is the map of the concatenation; gap buckets; positions from the newest."""
    module, rows = view_tokenizer(**options), batches.make_rows()
    got = module(BATCH.sequences["view"], rows)
    want = [plain.event_tokens(module, VIEW.side, BATCH, rows, "view", r) for r in range(6)]
    assert got.lengths.tolist() == batches.ALL_LENGTHS["view"]
    assert_parity([got.values], [torch.cat(want)], module, [rows[t] for t in ("item", "brand", "tag")])


@pytest.mark.parametrize("options", [{}, {"positions": 4, "dropout": 0.5, "norm": "rms"}])
def test_contents_of_events(options: dict[str, Any]) -> None:
    """The formula without time and place; with other ones the bits are the same, those of tokens are not."""
    module, rows = view_tokenizer(**options), batches.make_rows()
    events = BATCH.sequences["view"]
    got = module.contents(events, rows)
    want = [plain.event_tokens(module, VIEW.side, BATCH, rows, "view", r, contents=True) for r in range(6)]
    assert_parity([got], [torch.cat(want)], module, [rows[t] for t in ("item", "brand", "tag")])
    longer_ago = replace(events, time_gap=3 * events.time_gap.flip(0) + 5)
    one_request = replace(events, offsets=torch.tensor([0, len(events.time_gap)]), max_length=100)
    assert torch.equal(module.contents(longer_ago, rows), got)
    assert torch.equal(module.contents(one_request, rows), got)  # other places
    module.eval()
    assert (module(longer_ago, rows).values != module(events, rows).values).any(1).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gap_buckets_are_exact_powers_of_two(dtype: torch.dtype) -> None:
    module = view_tokenizer()
    gaps = torch.tensor([*range(5000), *(2**k - 1 for k in range(24)), *(2**k for k in range(24)), 10**10])
    expected = [min((gap + 1).bit_length() - 1, 31) for gap in gaps.tolist()]
    assert module._bucket(gaps.to(dtype)).tolist() == expected


def test_positions_count_from_the_newest_event() -> None:
    """The newest event of every request has position 0, whatever the length; the oldest share the last."""
    module, events, rows = view_tokenizer(positions=3), BATCH.sequences["view"], batches.make_rows()
    tokens = module(events, rows).values
    (changed,) = torch.autograd.grad(tokens.sum(1).square().sum(), [module.position.weight])
    assert changed.any(1).all()
    with torch.no_grad():
        module.position.weight[0] += rand(D)
    moved = (module(events, rows).values != tokens).any(1).tolist()
    assert moved == [i == n - 1 for n in batches.ALL_LENGTHS["view"] for i in range(n)]


def test_positions_of_a_merged_sequence_count_the_events_of_all_domains() -> None:
    module, rows = merged_tokenizers(positions=3), batches.make_rows()
    (tokens,) = module(BATCH, rows)
    with torch.no_grad():
        for tokenizer in module.tokenizers:
            tokenizer.position.weight[0] += rand(D)
    (after,) = module(BATCH, rows)
    moved = (after.values != tokens.values).any(1).tolist()
    assert moved == [i == n - 1 for n in tokens.lengths.tolist() for i in range(n)]


@pytest.mark.parametrize("positions", [0, 4])
@pytest.mark.parametrize("merge", [False, True])
def test_all_domains(merge: bool, positions: int) -> None:
    config, rows = model_config(d_model=D, positions=positions), batches.make_rows()
    module = scrambled(SequenceTokenizers(MANIFEST, config, dim=batches.DIM, merge=merge))
    got = module(BATCH, rows)
    per_request = [plain.sequences(module, MANIFEST, BATCH, rows, r) for r in range(6)]
    want = [torch.cat(parts) for parts in zip(*per_request, strict=True)]
    assert [j.check().lengths.tolist() for j in got] == [
        [len(s) for s in parts] for parts in zip(*per_request, strict=True)
    ]
    assert_parity([j.values for j in got], want, module, [rows[t] for t in ("item", "brand", "tag")])


def test_one_domain_needs_no_merge() -> None:
    manifest = batches.manifest(domains={"view": VIEW})
    module = SequenceTokenizers(manifest, model_config(d_model=D), dim=batches.DIM, merge=True).double()
    (merged,) = module(BATCH, batches.make_rows())
    assert module.tag is None and torch.equal(merged.offsets, BATCH.sequences["view"].offsets)


def merged_tokenizers(**options: Any) -> nn.Module:
    config = model_config(d_model=D, **options)
    return scrambled(SequenceTokenizers(MANIFEST, config, dim=batches.DIM, merge=True))


def test_merged_order_is_a_stable_sort() -> None:
    """Against Python's sort, with equal gaps inside and between sequences, and empty sequences."""
    lengths = [[3, 0, 4, 0], [2, 2, 0, 0], [1, 0, 3, 0]]
    generator = torch.Generator().manual_seed(0)
    sequences, gaps, expected = [], [], []
    three_years = 3 * 365 * 86_400_000  # in ms: in float32 they tie with all of the next 8 s
    for s, counts in enumerate(lengths):
        values = torch.arange(sum(counts)) + 100.0 * s
        sequences.append(Jagged.from_lengths(values, torch.tensor(counts)))
        parts = [torch.randint(0, 4, (n,), generator=generator).sort(descending=True)[0] for n in counts]
        gaps.append(torch.cat(parts) + three_years)
    for request in range(4):
        events = [
            (-int(gap), float(value))
            for jagged, gap_of in zip(sequences, gaps, strict=True)
            for value, gap, owner in zip(jagged.values, gap_of, jagged.segment_ids(), strict=True)
            if owner == request
        ]
        expected += [value for _, value in sorted(events, key=lambda event: event[0])]
    layouts = [s.with_values(gap) for s, gap in zip(sequences, gaps, strict=True)]
    merged = MergedOrder(layouts).merge(sequences).check()
    assert merged.values.tolist() == expected
    assert merged.lengths.tolist() == [6, 2, 7, 0]


def test_merge_of_nothing() -> None:
    empty = Jagged.from_lengths(torch.zeros(0, D), torch.zeros(2, dtype=torch.int64))
    layouts = [empty.with_values(torch.zeros(0, dtype=torch.int64))] * 2
    merged = MergedOrder(layouts).merge([empty, empty]).check()
    assert merged.lengths.tolist() == [0, 0] and merged.values.shape == (0, D)


def test_feature_dropout_takes_whole_embeddings_and_only_in_training() -> None:
    module, rows = ns_tokenizer(feature_dropout=0.5), batches.make_rows()
    vectors, (ids, dense) = module.groups[1].vectors.candidate, (BATCH.candidate_ids, BATCH.candidate_dense)
    whole = vectors.eval()(ids, dense, rows)
    assert torch.equal(whole, vectors(ids, dense, rows))
    torch.manual_seed(0)
    dropped = vectors.train()(ids, dense, rows)
    width = batches.DIM
    item, price = dropped[:, :width], dropped[:, -1]
    kept = item.abs().sum(1) > 0
    assert kept.any() and not kept.all()
    torch.testing.assert_close(item, whole[:, :width] * kept[:, None] * 2)  # 1 / (1 - 0.5): the mean stays
    assert torch.equal(price, whole[:, -1])


def test_dropout_of_events_only_in_training() -> None:
    module, rows = view_tokenizer(dropout=0.5), batches.make_rows()
    events = BATCH.sequences["view"]
    assert torch.equal(module.eval()(events, rows).values, module(events, rows).values)
    assert (module.train()(events, rows).values == 0).any()


def test_a_sequence_without_any_event() -> None:
    empty = batches.take_events(BATCH.sequences["view"], [torch.zeros(0, dtype=torch.int64)] * 3)
    assert isinstance(empty, SequenceBatch)
    tokens = view_tokenizer(positions=4)(replace(empty), batches.make_rows())
    assert tokens.check().values.shape == (0, D) and tokens.requests == 3
