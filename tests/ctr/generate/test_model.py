"""The generator's tokens and losses, against the definition on one request at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ctr.generate.auxiliary_model import AuxiliaryModel
from ctr.generate.semantic_ids import BOS, PAD
from features.errors import ConfigError
from tests.ctr.generate.toy import joint, log_p, toy_batch, toy_ids, toy_model

IDS = toy_ids()
HISTORIES = [[2, 3, 1, 4], [], [5, 6, 7, 8]]  # row 1 is no item
TARGETS = [[9], [10], [1, 11]]  # of the last request the second candidate is the first with an ID


def code(item: int) -> list[int]:
    return IDS.tokens[item].tolist()


def test_prompts_are_packed_to_the_end_oldest_first() -> None:
    prompt = toy_model().prompt(toy_batch(HISTORIES, TARGETS)).tokens
    assert prompt.shape == (3, 13)
    assert prompt[0].tolist() == [PAD] * 3 + [BOS, *code(2), *code(3), *code(4)]
    assert prompt[1].tolist() == [PAD] * 12 + [BOS]
    assert prompt[2].tolist() == [BOS, *code(5), *code(6), *code(7), *code(8)]


def test_targets() -> None:
    batch = toy_batch(HISTORIES, TARGETS)
    assert toy_model().target_items(batch).tolist() == [9, 10, 11]
    clicks = toy_model(targets="positive")
    batch.label[1] = 0
    assert clicks.target_items(batch).tolist() == [9, 0, 11]


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "t5"])
def test_loss_is_that_of_every_event_given_the_ones_before(architecture: str) -> None:
    model = toy_model(architecture=architecture)
    wanted: list[Tensor] = []
    for history, target in zip(HISTORIES, (9, 10, 11), strict=True):
        known = [item for item in history if item != 1]
        if not model.both_sides:
            wanted += [-joint(model, known[:i], IDS.tokens[[known[i]]])[0] for i in range(len(known))]
        wanted.append(-joint(model, known, IDS.tokens[[target]])[0])
    batch = toy_batch(HISTORIES, TARGETS)
    with torch.no_grad():
        found = model(batch, {})
        targets = model.predictions(batch)
    torch.testing.assert_close(found, torch.stack(wanted).mean(), rtol=1e-4, atol=1e-4)
    assert int(targets.of_target.sum()) == 9


def test_mask_loss_drops_the_terms_of_filtered_events_and_keeps_them_as_context() -> None:
    model = toy_model(token_filter={"mode": "mask_loss", "by": "accident", "threshold": 0.5})
    accident = torch.tensor([[0.0], [1], [0], [0], [0], [0], [1], [1]])
    batch = toy_batch(HISTORIES, TARGETS, accident=accident)
    kept = [([], 2), ([2, 3], 4), ([], 5), ([5], 6)]  # no target: whether it is an accident is not known
    wanted = [-joint(model, history, IDS.tokens[[item]])[0] for history, item in kept]
    with torch.no_grad():
        torch.testing.assert_close(model(batch, {}), torch.stack(wanted).mean(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "t5"])
def test_an_auxiliary_model_reads_what_a_plain_forward_reads(architecture: str) -> None:
    model = toy_model(architecture=architecture)
    histories = [[2, 3, 4], [], [5]]
    prompt = model.prompt(toy_batch(histories)).tokens
    generated = IDS.tokens[[6, 7, 8, 9, 10, 11]]
    with torch.no_grad():
        other = AuxiliaryModel(model, prompt)
        found, likelihood = other.log_probs(generated)[:, :-1], other.likelihood(generated)
        again = other.log_probs(generated)[:, :-1]
    for i in range(6):
        torch.testing.assert_close(
            found[[i]], log_p(model, histories[i // 2], generated[[i]]), rtol=1e-4, atol=1e-4
        )
        torch.testing.assert_close(
            likelihood[[i]], joint(model, histories[i // 2], generated[[i]]), rtol=1e-4, atol=1e-4
        )
    assert torch.equal(found, again)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"event": "brand"}, "generator.domain, event and candidate must name a field of events"),
        ({"architecture": "bert"}, "generator.architecture must be one that generates, .* got 'bert'"),
        ({"architecture": "lama"}, "generator.architecture must be one of"),
        (
            {"d_model": 9},
            "generator.d_model, generator.heads and generator.options do not make",
        ),
        ({"options": {"hidden_size": 4}}, "generator.options must not .*: it is set by generator.d_model"),
        ({"options": {"vocab_size": 4}}, "'vocab_size': it is set by the semantic IDs"),
        ({"options": {"pad_token_id": 4}}, "'pad_token_id': it is set by the semantic IDs"),
        ({"options": {"layers": 4}}, "generator.options must be fields of transformers' LlamaConfig"),
        (
            {"options": {"hidden_act": "none"}},
            "cannot build 'llama': .*; set sizes .* in generator$",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_its_own_key(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        toy_model(**settings)
    assert "model.encoder" not in str(refused.value)
