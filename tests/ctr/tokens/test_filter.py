"""Token filtering: hidden events against the formula, a classifier that learns, losses that drop terms."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ctr.batch import Batch
from ctr.blocks.jagged import Jagged
from ctr.build import build_model
from ctr.models.registry import model_config
from ctr.tokens.config import TokenFilterConfig
from ctr.tokens.events import SequenceTokenizers
from ctr.tokens.filter import TokenFilter, TokenFilters, input_domains, mask_loss
from features.errors import ConfigError
from tests.ctr import batches
from tests.ctr.reference.formulas import gelu, linear
from tests.ctr.reference.parity import assert_parity, rand, scrambled

MANIFEST, D = batches.manifest(), 4


def by_column() -> TokenFilterConfig:
    return TokenFilterConfig(mode="remove", domains=["view"], by="dwell", threshold=0.3)


def slow(module: TokenFilter, tokens: Tensor, batch: Batch) -> Tensor:
    """One event at a time; backward through s where forward has a step."""
    result = []
    for i, token in enumerate(tokens):
        if module.classifier is None:
            score = batch.sequences["view"].dense["dwell"][i, 0]
        else:
            x = token
            for layer in module.classifier:
                x = linear(layer, x) if isinstance(layer, nn.Linear) else gelu(x)
            score = 1 / (1 + torch.exp(-x[0]))
        hidden, smooth = (module.hidden_event, token) if score > module.threshold else (token, token)
        # Straight through: the value of `hidden`, and beside it the slope of s (h - x).
        slope = (score - score.detach()) * (module.hidden_event - smooth)
        result.append(hidden + slope)
    return torch.stack(result)


@pytest.mark.parametrize(
    "config",
    [by_column(), TokenFilterConfig(mode="remove"), TokenFilterConfig(mode="remove", hidden=3)],
    ids=["column", "linear", "hidden layer"],
)
def test_removal(config: TokenFilterConfig) -> None:
    """Outputs and the gradients of tokens, classifier and hidden event; some events go, some stay."""
    batch = batches.make_batch()
    events = batch.sequences["view"]
    module = scrambled(TokenFilter(config, width=D))
    assert isinstance(module, TokenFilter)
    tokens = rand(len(events.time_gap), D)
    # The score is float32 inside, whatever the tokens are.
    if module.classifier is not None:
        module.scores = lambda tokens, _: module.classifier(tokens).squeeze(-1).sigmoid()  # type: ignore[method-assign,assignment,misc]
    gone = module.filtered(tokens, events)
    assert gone.any() and not gone.all()
    got = module(tokens, events)
    assert torch.equal(got[gone], module.hidden_event.expand(int(gone.sum()), D))
    assert torch.equal(got[~gone], tokens[~gone])
    assert_parity([got], [slow(module, tokens, batch)], module, [tokens])


@pytest.mark.parametrize("kind", ["hyformer", "longer", "two_stage"])
def test_a_removed_event_says_nothing(kind: str) -> None:
    """Whatever it was, the logits are the same, and the column itself is no input."""
    config = model_config(kind=kind, d_model=20, heads=2, token_filter=by_column())
    model = scrambled(build_model(MANIFEST, config, dim=batches.DIM, seed=1))
    batch, rows = batches.make_batch(), batches.make_rows()
    events = batch.sequences["view"]
    gone = events.dense["dwell"][:, 0] > 0.3
    before = model(batch, rows)
    changed = events.ids["item"].inverse_indices.clone()
    changed[gone] = (changed[gone] + 1) % batches.UNIQUE
    column = torch.where(gone, 0.31, -5.0)[:, None].expand(-1, 3)
    item = replace(events.ids["item"], inverse_indices=changed)
    other = replace(events, ids={**events.ids, "item": item}, dense={"dwell": column.double()})
    torch.testing.assert_close(model(with_views(batch, other), rows), before)
    kept = changed.clone()
    kept[~gone] = (kept[~gone] + 1) % batches.UNIQUE
    item = replace(item, inverse_indices=kept)
    other = replace(events, ids={**events.ids, "item": item})
    assert not torch.allclose(model(with_views(batch, other), rows), before)


def with_views(batch: Batch, events: Any) -> Batch:
    return replace(batch, sequences={**batch.sequences, "view": events})


def test_contents_are_hidden_with_their_tokens() -> None:
    config = model_config(d_model=D, token_filter=by_column())
    module = scrambled(SequenceTokenizers(MANIFEST, config, dim=batches.DIM, merge=False))
    batch, rows = batches.make_batch(), batches.make_rows()
    tokens, contents = module.with_contents(batch, rows)
    assert all(torch.equal(a.values, b.values) for a, b in zip(tokens, module(batch, rows), strict=True))
    hidden = module.filters.filters[0].hidden_event
    filtered = (tokens[0].values == hidden).all(1)
    assert filtered.any() and not filtered.all()
    assert torch.equal((contents[0] == hidden).all(1), filtered)


def test_off_filters_nothing_and_has_no_other_option() -> None:
    assert input_domains(MANIFEST, TokenFilterConfig()) == MANIFEST.domains
    with pytest.raises(ConfigError, match="mode off filters no event, so that by: 'dwell', threshold"):
        model_config(token_filter={"threshold": 0.1, "by": "dwell"})


def test_only_the_named_domains() -> None:
    config = model_config(d_model=D, token_filter=by_column())
    module = SequenceTokenizers(MANIFEST, config, dim=batches.DIM, merge=False)
    assert module.filters.scored == [0]
    assert [c.name for c in module.tokenizers[0].numbers] == []
    everywhere = TokenFilters(MANIFEST, model_config(d_model=D, token_filter={"mode": "remove"}))
    assert everywhere.scored == [0, 1]
    empty = Jagged.from_lengths(torch.zeros(0, D), torch.zeros(2, dtype=torch.int64))
    nothing = batches.take_events(
        batches.make_batch().sequences["view"], [torch.zeros(0, dtype=torch.int64)] * 2
    )
    assert everywhere([empty, empty], [nothing, nothing])[0].values.shape == (0, D)


def test_a_classifier_finds_what_disturbs() -> None:
    """The label is the sign of the sum of the true events; a third are loud noise, told by one coordinate.

    Trained by the click loss alone, the filter ends up hiding noise and little else, and the loss falls below
    what the same model reaches without it.
    """
    torch.manual_seed(0)
    lengths = torch.full((300,), 6)
    noise = torch.rand(1800) < 1 / 3
    values = torch.randn(1800, D) * torch.where(noise, 4.0, 1.0)[:, None]
    values[:, -1] = torch.where(noise, 2.0, -2.0)
    total = torch.where(noise, 0.0, values[:, 0]).view(300, 6).sum(1)
    label = (total > 0).float()
    losses = {}
    for filtered in (False, True):
        module = TokenFilter(TokenFilterConfig(mode="remove"), width=D)
        head = nn.Linear(D, 1)
        optimizer = torch.optim.Adam([*module.parameters(), *head.parameters()], lr=0.05)
        for _ in range(150):
            tokens = module(values, None) if filtered else values  # type: ignore[arg-type]
            pooled = Jagged.from_lengths(tokens, lengths).mean_pool()
            loss = nn.functional.binary_cross_entropy_with_logits(head(pooled)[:, 0], label)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses[filtered] = loss.item()
    gone = module.filtered(values, None)  # type: ignore[arg-type]
    assert losses[True] < 0.6 * losses[False]
    assert gone[noise].float().mean() > 0.9 and gone[~noise].float().mean() < 0.1


# ---- mask_loss ----


def next_event_loss(table: Tensor, items: Tensor, accidental: Tensor, *, mask: bool) -> Tensor:
    """A toy next-event model: row a of `table` are the logits of what follows item a."""
    logits, target, flag = table[items[:-1]], items[1:], accidental[1:]
    losses = nn.functional.cross_entropy(logits, target, reduction="none")
    return mask_loss(losses, flag if mask else torch.zeros_like(flag))


def test_masked_terms_have_no_gradient_but_stay_context() -> None:
    table = torch.zeros(4, 4, requires_grad=True)
    items, accidental = torch.tensor([0, 1, 3, 2, 1]), torch.tensor([False, False, True, False, False])
    (gradient,) = torch.autograd.grad(next_event_loss(table, items, accidental, mask=True), table)
    # 0→1 is learned, 1→3 (3 is an accident) not, 3→2 is: the accident is still read; 2→1 is.
    assert gradient.any(1).tolist() == [True, False, True, True]
    torch.testing.assert_close(gradient[3], torch.tensor([0.25, 0.25, -0.75, 0.25]) / 3)


def test_the_true_transitions_come_back() -> None:
    """Items go round 0 → 1 → … → 7 → 0, three in ten followed by an accident; against what must come out."""
    torch.manual_seed(0)
    items, flags, now = [], [], 0
    for _ in range(3000):
        items.append(now)
        flags.append(False)
        now = (now + 1) % 8
        if torch.rand(()) < 0.3:
            items.append(int(torch.randint(8, ())))
            flags.append(True)
    sequence, accidental = torch.tensor(items), torch.tensor(flags)
    chance = {}
    for mask in (False, True):
        table = torch.zeros(8, 8, requires_grad=True)
        optimizer = torch.optim.Adam([table], lr=0.3)
        for _ in range(60):
            optimizer.zero_grad()
            next_event_loss(table, sequence, accidental, mask=mask).backward()
            optimizer.step()
        chance[mask] = table.softmax(1).diagonal(1).mean().item()
    # What is predicted after a true event is 0.7 right, after an accident, still read, 1/8 …
    assert chance[True] == pytest.approx(0.7 + 0.3 / 8, abs=0.03)
    # … and without the mask 0.3 of 1.3 terms more have an accident as target.
    assert chance[False] == pytest.approx((0.7 + 2 * 0.3 / 8) / 1.3, abs=0.03)


def test_nothing_left_and_infinite_terms() -> None:
    losses = torch.tensor([float("inf"), 2.0], requires_grad=True)
    assert mask_loss(losses, torch.tensor([True, False])).item() == 2
    nothing = mask_loss(losses, torch.tensor([True, True]))
    nothing.backward()
    assert nothing.item() == 0 and losses.grad is not None and not losses.grad.any()
    for flags in (torch.tensor([1.0, 0.0]), torch.tensor([True])):
        with pytest.raises(ValueError, match="one flag per predicted event"):
            mask_loss(losses, flags)


# ---- what does not fit ----


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"domains": ["click"]}, r"domains of \['buy', 'view'\], got \['click'\]"),
        ({"by": "item"}, r"dense field of the events of 'view', \['dwell'\], got 'item'"),
        ({"by": "dwell"}, r"events of 'buy', \[\], got 'dwell'"),
        ({"by": "dwell", "domains": ["view"], "mode": "mask_loss"}, "kind 'hyformer', which predicts clicks"),
    ],
)
def test_what_does_not_fit_is_named(options: dict[str, Any], message: str) -> None:
    config = model_config(d_model=20, heads=2, token_filter={"mode": "remove", **options})
    with pytest.raises(ConfigError, match=message):
        build_model(MANIFEST, config, dim=batches.DIM, seed=1)


def test_a_classifier_cannot_decide_which_losses_count() -> None:
    config = model_config(d_model=D, token_filter=TokenFilterConfig(mode="mask_loss"))
    with pytest.raises(ConfigError, match="must name a field of the events with mode mask_loss"):
        TokenFilters(MANIFEST, config)
