"""Every strategy against its definition, written out over all sequences of a toy vocabulary."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ctr.generate.config import StrategyConfig
from ctr.generate.decoding import Decoder
from ctr.generate.model import NextBehaviour
from ctr.generate.semantic_ids import FIRST
from features.errors import ConfigError
from tests.ctr.generate.toy import SEQUENCES, joint, log_p, toy_batch, toy_ids, toy_model

HISTORIES = [[2, 3, 4], [5], [6, 7, 8, 9]]
IDS = toy_ids()
ITEMS = IDS.items
TOKENS = IDS.tokens[ITEMS]
ALL = len(ITEMS)
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:transformers")


@pytest.fixture(scope="module", params=["llama", "gpt2", "t5"])
def model(request: pytest.FixtureRequest) -> NextBehaviour:
    return toy_model(architecture=request.param)


@pytest.fixture(scope="module")
def llama() -> NextBehaviour:
    return toy_model()


def decode(model: NextBehaviour, *, rewards: Tensor | None = None, decoder: Any = None, **how: Any) -> Any:
    strategy = StrategyConfig.model_validate(how)
    return Decoder(model, IDS, strategy, **(decoder or {}))(toy_batch(HISTORIES), rewards)


def assert_ranked(found: Any, scores: Tensor, count: int | None = None) -> None:
    """The items in the order of their scores, and the scores."""
    order = scores.argsort(descending=True)[:count]
    assert [item for item, _ in found] == ITEMS[order].tolist()
    np.testing.assert_allclose([score for _, score in found], scores[order], rtol=1e-4, atol=1e-4)


def test_beam_with_all_beams_ranks_all_items(model: NextBehaviour) -> None:
    """Of requests of different lengths in one batch: padding changes nothing."""
    for history, found in zip(HISTORIES, decode(model, width=ALL), strict=True):
        assert_ranked(found, joint(model, history, TOKENS))


def test_items_that_are_unwanted_are_not_generated(model: NextBehaviour) -> None:
    """Each request has its own; beams go on with the others, so none is lost."""
    unwanted = [ITEMS[[0, 3, 4]].numpy(), np.array([], dtype=np.int64), ITEMS[2:].numpy()]
    decoder = Decoder(model, IDS, StrategyConfig(width=ALL))
    found = decoder(toy_batch(HISTORIES), None, unwanted)
    for history, own, gone in zip(HISTORIES, found, unwanted, strict=True):
        scores = joint(model, history, TOKENS)
        scores[torch.isin(ITEMS, torch.from_numpy(gone))] = -torch.inf
        assert_ranked(own, scores, ALL - len(gone))


def test_unconstrained_beam_also_finds_what_is_no_item(llama: NextBehaviour) -> None:
    found = decode(llama, width=4, constrained=False)
    best = [set(slow_beam(llama, history, 4, lambda prefix: range(10))) for history in HISTORIES]
    tokens = {tuple(code): item for item, code in zip(ITEMS.tolist(), TOKENS.tolist(), strict=True)}
    assert [{item for item, _ in own} for own in found] == [
        {tokens[s] for s in b if s in tokens} for b in best
    ]


def slow_beam(
    model: NextBehaviour, history: list[int], width: int, allowed: Any, penalty: Any = None
) -> list:
    """Beam search, one sequence at a time; `penalty(step, token)` is taken off."""
    beams = [((), 0.0)]
    for step in range(3):
        grown = []
        for prefix, score in beams:
            tail = torch.tensor([[*prefix, *[FIRST] * (3 - step)]])
            row = log_p(model, history, tail)[0, step]
            for token in allowed(prefix):
                off = penalty(step, token) if penalty else 0.0
                grown.append(((*prefix, token), score + row[token].item() - off))
        beams = sorted(grown, key=lambda pair: -pair[1])[:width]
    return [prefix for prefix, _ in beams]


def followers(prefix: tuple[int, ...]) -> list[int]:
    """Tokens that some item has behind a beginning."""
    codes = TOKENS.tolist()
    return sorted({code[len(prefix)] for code in codes if tuple(code[: len(prefix)]) == prefix})


def items_of(sequences: list[tuple[int, ...]]) -> list[int]:
    codes = [tuple(code) for code in TOKENS.tolist()]
    return [int(ITEMS[codes.index(sequence)]) for sequence in sequences]


def test_narrow_beam_and_greedy(model: NextBehaviour) -> None:
    for history, three, one in zip(
        HISTORIES, decode(model, width=3), decode(model, mode="greedy"), strict=True
    ):
        assert [item for item, _ in three] == items_of(slow_beam(model, history, 3, followers))
        assert [item for item, _ in one] == items_of(slow_beam(model, history, 1, followers))


def test_diverse_beam(llama: NextBehaviour) -> None:
    """Groups in lockstep, as the paper has them."""
    found = decode(llama, width=4, diversity={"groups": 2, "penalty": 3.0})
    for history, own in zip(HISTORIES, found, strict=True):
        first, second = lockstep_groups(llama, history, width=2, penalty=3.0)
        wanted = items_of([first[0], second[0], first[1], second[1]])
        assert [item for item, _ in own] == list(dict.fromkeys(wanted))


def lockstep_groups(model: NextBehaviour, history: list[int], *, width: int, penalty: float) -> list:
    groups: list[list] = [[((), 0.0)], [((), 0.0)]]
    for step in range(3):
        taken: list[int] = []
        for g, beams in enumerate(groups):
            grown = []
            for prefix, score in beams:
                row = log_p(model, history, torch.tensor([[*prefix, *[FIRST] * (3 - step)]]))[0, step]
                for token in followers(prefix):
                    grown.append(((*prefix, token), score + row[token].item() - penalty * taken.count(token)))
            groups[g] = sorted(grown, key=lambda pair: -pair[1])[:width]
            taken += [prefix[-1] for prefix, _ in groups[g]]
    return [[prefix for prefix, _ in beams] for beams in groups]


def masked(rows: Tensor) -> Tensor:
    """(items, 3, V): −inf for tokens that no item has behind the beginning."""
    mask = torch.full_like(rows, -torch.inf)
    for i, code in enumerate(TOKENS.tolist()):
        for step in range(3):
            mask[i, step, followers(tuple(code[:step]))] = 0.0
    return rows + mask


def at_tokens(rows: Tensor) -> Tensor:
    return rows.gather(2, TOKENS[..., None])[..., 0].sum(1)


def test_contrastive(model: NextBehaviour) -> None:
    amateur = toy_model(1, architecture=model.config.architecture)
    how = {"amateur": "other", "weight": 0.7, "plausible": 0.2}
    found = decode(model, width=ALL, contrastive=how, decoder={"amateur": amateur})
    for history, own in zip(HISTORIES, found, strict=True):
        expert = masked(log_p(model, history, TOKENS)).log_softmax(-1)
        good = expert.exp() >= 0.2 * expert.exp().amax(-1, keepdim=True)
        contrast = expert - 0.7 * log_p(amateur, history, TOKENS)
        scores = at_tokens(contrast.masked_fill(~good, -torch.inf))
        assert_ranked(own, scores, int((scores > -torch.inf).sum()))


def test_ensemble(model: NextBehaviour) -> None:
    others = [toy_model(seed, architecture=model.config.architecture) for seed in (1, 2)]
    found = decode(model, width=ALL, ensemble=["a", "b"], decoder={"ensemble": others})
    for history, own in zip(HISTORIES, found, strict=True):
        mean = torch.stack([log_p(m, history, TOKENS).exp() for m in (model, *others)]).mean(0).log()
        assert_ranked(own, at_tokens(mean))


def test_reward_of_beginnings(llama: NextBehaviour) -> None:
    rewards = torch.rand(len(HISTORIES), ALL, generator=torch.Generator().manual_seed(5)) + 0.01
    found = decode(llama, width=ALL, reward={"weight": 1.5, "when": "tokens"}, rewards=rewards)
    for r, (history, own) in enumerate(zip(HISTORIES, found, strict=True)):
        rows = masked(log_p(llama, history, TOKENS)).log_softmax(-1)
        for i, code in enumerate(TOKENS.tolist()):
            for step in range(3):
                for token in followers(tuple(code[:step])):
                    below = [
                        rewards[r, j]
                        for j, c in enumerate(TOKENS.tolist())
                        if c[: step + 1] == [*code[:step], token]
                    ]
                    rows[i, step, token] += 1.5 * torch.stack(below).mean().log()
        assert_ranked(own, at_tokens(rows.log_softmax(-1)))


def draws(llama: NextBehaviour, **how: Any) -> dict[int, float]:
    """The share of the draws of the first request that gave each item."""
    torch.manual_seed(0)
    found = decode(llama, mode="sample", width=3000, order="vote", **how)[0]
    return dict(found)


@pytest.mark.parametrize(
    "how",
    [{"temperature": 0.5}, {"top_k": 2}, {"top_p": 0.6}, {"epsilon": 0.2}],
    ids=lambda how: next(iter(how)),
)
def test_sampling(llama: NextBehaviour, how: dict[str, float]) -> None:
    """Shares of the draws, and so the votes, are the probabilities, shaped token by token."""
    rows = masked(log_p(llama, HISTORIES[0], TOKENS)).log_softmax(-1)
    if "temperature" in how:
        rows = rows / how["temperature"]
    p = rows.softmax(-1)
    order = p.argsort(-1, descending=True)
    ranked = p.gather(-1, order)
    keep = torch.ones_like(p, dtype=torch.bool)
    if "top_k" in how:
        keep = p >= ranked[..., [1]]
    if "top_p" in how:
        keep.scatter_(-1, order, ranked.cumsum(-1) - ranked < how["top_p"])
    if "epsilon" in how:
        keep = (p >= how["epsilon"]) | (p == ranked[..., [0]])
    p = (p * keep) / (p * keep).sum(-1, keepdim=True)
    wanted = at_tokens(p.log()).exp()
    found = draws(llama, **how)
    for item, share in zip(ITEMS.tolist(), wanted.tolist(), strict=True):
        assert abs(found.get(item, 0.0) - share) < 0.03


def test_minimum_bayes_risk(llama: NextBehaviour) -> None:
    """The order of exact expected utilities; with many draws, within what they scatter."""
    torch.manual_seed(0)
    found = decode(llama, mode="sample", width=3000, order="mbr")[0]
    rows = masked(log_p(llama, HISTORIES[0], TOKENS)).log_softmax(-1)
    unit = torch.nn.functional.normalize(IDS.vectors[ITEMS], dim=1)
    utility = unit @ unit.T @ at_tokens(rows).exp()
    exact = dict(zip(ITEMS.tolist(), utility.tolist(), strict=True))
    assert all(abs(score - exact[item]) < 0.05 for item, score in found)
    assert found[0][1] == max(score for _, score in found)


def test_likelihood_orders_draws(llama: NextBehaviour) -> None:
    torch.manual_seed(0)
    found = decode(llama, mode="sample", width=2000, order="likelihood")
    for history, own in zip(HISTORIES, found, strict=True):
        exact = dict(zip(ITEMS.tolist(), joint(llama, history, TOKENS).tolist(), strict=True))
        wanted = sorted((item for item, _ in own), key=lambda item: -exact[item])
        assert [item for item, _ in own] == wanted
        np.testing.assert_allclose([score for _, score in own], [exact[i] for i in wanted], rtol=1e-4)


@pytest.mark.parametrize("architecture", ["llama", "t5"])
def test_speculative_decoding_gives_what_greedy_gives(architecture: str) -> None:
    """Several events in a row, drafted by another model."""
    model, draft = (toy_model(seed, architecture=architecture) for seed in (0, 1))
    plain = decode(model, mode="greedy", horizon=2, width=1)
    drafted = decode(model, mode="greedy", horizon=2, width=1, draft="other", decoder={"draft": draft})
    assert [[item for item, _ in own] for own in plain] == [[item for item, _ in own] for own in drafted]
    assert all(item in ITEMS for own in plain for item, _ in own)


def test_the_oldest_events_make_room_for_what_is_generated() -> None:
    """Learned positions end: of 4 events, 3 leave room for 2 more."""
    model = toy_model(architecture="gpt2")
    found = decode(model, mode="greedy", horizon=2, width=1)
    for history, own in zip(HISTORIES, found, strict=True):
        first = items_of(slow_beam(model, history[-3:], 1, followers))
        second = items_of(slow_beam(model, [*history[-3:], *first], 1, followers))
        assert [item for item, _ in own] == list(dict.fromkeys([*first, *second]))
    with pytest.raises(ConfigError, match="horizon must be at most 3"):
        decode(model, mode="greedy", horizon=4, width=1)


def test_keys_and_values_are_kept(llama: NextBehaviour, monkeypatch: pytest.MonkeyPatch) -> None:
    """The prompt is read once for all beams, then one token at a time."""
    shapes: list[tuple[int, ...]] = []
    inner = llama.lm.forward

    def spy(*args: Any, **kwargs: Any) -> Any:
        shapes.append(tuple((args[0] if args else kwargs["input_ids"]).shape))
        return inner(*args, **kwargs)

    monkeypatch.setattr(llama.lm, "forward", spy)
    decode(llama, width=3)
    assert shapes == [(3, 12), (9, 1), (9, 1), (9, 1)]


def test_enumeration_is_whole() -> None:
    assert len({tuple(s) for s in SEQUENCES.tolist()}) == 18 and ALL == 11
