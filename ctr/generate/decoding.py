"""Decoding one batch of requests by a strategy: prompts, plug-ins, the library's `generate`, ranked items.

R requests, W beams or draws of each, C tokens of one item, V tokens in all, P nodes of the trie.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ctr.batch import Batch
from ctr.generate.auxiliary_model import AuxiliaryModel
from ctr.generate.config import StrategyConfig
from ctr.generate.model import NextBehaviour
from ctr.generate.ordering import (
    Ranked,
    as_generated,
    by_expected_utility,
    by_likelihood,
    by_votes,
)
from ctr.generate.processors import Contrastive, Diversity, Ensemble, ItemConstraint, PrefixReward
from ctr.generate.semantic_ids import BOS, PAD, SemanticIds
from ctr.generate.trie import DEAD, Trie
from ctr.library.transformers import generate
from features.errors import ConfigError

# Beams that hold nothing come back from the library with sums at or below −1e9.
_DEAD_BEAM = -1e8

Processor = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Generated:
    """What was generated: `width` sequences for each request, side by side."""

    tokens: Tensor  # int64 (Q, T)
    scores: Tensor  # (Q,) of beams the sum of their scores, else 0


@dataclass
class Decoder:
    """Decodes by one strategy.

    Args:
        model: the generator, in evaluation mode.
        ids: its items.
        strategy: how.
        ensemble: further generators of the same semantic IDs.
        amateur: the weaker one of contrastive decoding.
        draft: the small one of speculative decoding.
    """

    model: NextBehaviour
    ids: SemanticIds
    strategy: StrategyConfig
    ensemble: Sequence[NextBehaviour] = ()
    amateur: NextBehaviour | None = None
    draft: NextBehaviour | None = None
    trie: Trie = field(init=False)

    def __post_init__(self) -> None:
        most = (self.model.longest - 1) // self.ids.length - 2
        if self.strategy.horizon > max(1, most):
            raise ConfigError(f"horizon must be at most {most} for this model, got {self.strategy.horizon}")
        items = self.ids.items
        self.trie = Trie(items, self.ids.tokens[items], vocabulary=self.ids.vocabulary)

    @torch.inference_mode()
    def __call__(
        self, batch: Batch, rewards: Tensor | None = None, unwanted: Sequence[np.ndarray] | None = None
    ) -> list[Ranked]:
        """Ranked items of each request; sequences that are no item are left out.

        Args:
            batch: on the CPU.
            rewards: (R, I) of all items in the order of `ids.items`, where the strategy re-weights tokens.
            unwanted: for each request the items that it must not be given; for constrained decoding.
        """
        open_nodes = None if unwanted is None else self._open(unwanted)
        prompt = self._with_room(self.model.prompt(batch).tokens)
        if self.draft is not None:
            return self._ranked(prompt, self._speculative(prompt, open_nodes))
        begin = 1 if self.model.both_sides else prompt.shape[1]
        processors = self._processors(prompt, rewards, begin, open_nodes)
        search = self._diverse if self.strategy.diversity else self._generate
        found = search(prompt, processors, begin)
        return self._ranked(prompt, found)

    def _open(self, unwanted: Sequence[np.ndarray]) -> Tensor:
        """bool (R, P): the nodes under which some item is left."""
        left = torch.ones(len(unwanted), int(self.ids.items.max()) + 1)
        for row, items in zip(left, unwanted, strict=True):
            row[torch.from_numpy(items[items < len(row)])] = 0.0
        return self.trie.prefix_means(left[:, self.ids.items], self.ids.items) > 0

    def _with_room(self, tokens: Tensor) -> Tensor:
        """Without the oldest events that would leave no positions for what is generated."""
        events = (self.model.longest - 1) // self.ids.length - self.strategy.horizon
        kept = 1 + events * self.ids.length
        if tokens.shape[1] <= kept:
            return tokens
        cut = tokens[:, -kept:].clone()
        cut[:, 0] = torch.where(cut[:, 1] == PAD, cut[:, 0], BOS)
        return cut

    def _processors(
        self, prompt: Tensor, rewards: Tensor | None, begin: int, open_nodes: Tensor | None
    ) -> list[Processor]:
        strategy = self.strategy
        found: list[Processor] = []
        if self.ensemble:
            found.append(Ensemble([AuxiliaryModel(model, prompt) for model in self.ensemble], begin=begin))
        if strategy.constrained:
            found.append(ItemConstraint(self.trie, begin=begin, open_nodes=open_nodes))
        if strategy.contrastive is not None:
            assert self.amateur is not None
            how = strategy.contrastive
            amateur = AuxiliaryModel(self.amateur, prompt)
            found.append(Contrastive(amateur, weight=how.weight, plausible=how.plausible, begin=begin))
        if strategy.reward is not None and strategy.reward.when == "tokens":
            assert rewards is not None
            values = self.trie.prefix_means(rewards, self.ids.items)
            found.append(PrefixReward(self.trie, values, weight=strategy.reward.weight, begin=begin))
        return found

    def _settings(self, width: int) -> dict[str, Any]:
        strategy = self.strategy
        length = {"max_new_tokens": strategy.horizon * self.ids.length}
        if strategy.mode == "greedy":
            return {**length, "do_sample": False}
        if strategy.mode == "beam":
            # All items have C tokens: nothing is gained by weighing lengths.
            beams = {"num_beams": width, "num_return_sequences": width, "length_penalty": 0.0}
            return {**length, **beams, "do_sample": False, "output_scores": True}
        shape = {"temperature": strategy.temperature, "top_k": strategy.top_k, "top_p": strategy.top_p}
        drawn = {**shape, "epsilon_cutoff": strategy.epsilon, "num_return_sequences": width}
        return {**length, **drawn, "do_sample": True}

    def _generate(
        self, prompt: Tensor, processors: Sequence[Processor], begin: int, width: int = 0
    ) -> Generated:
        width = 1 if self.strategy.mode == "greedy" else width or self.strategy.width
        output = generate(self.model.lm, prompt, processors, width=width, **self._settings(width))
        scores = getattr(output, "sequences_scores", None)
        tokens = output.sequences[:, begin:]
        return Generated(tokens, torch.zeros(len(tokens)) if scores is None else scores)

    def _speculative(self, prompts: Tensor, open_nodes: Tensor | None) -> Generated:
        """One request at a time and without padding, as the library wants it."""
        assert self.draft is not None
        parts = []
        for row, tokens in enumerate(prompts):
            prompt = tokens[tokens != PAD][None]
            begin = 1 if self.model.both_sides else prompt.shape[1]
            own = None if open_nodes is None else open_nodes[row : row + 1]
            processors = self._processors(prompt, None, begin, own)
            output = generate(self.model.lm, prompt, processors, draft=self.draft.lm, **self._settings(1))
            parts.append(output.sequences[:, begin:])
        return Generated(torch.cat(parts), torch.zeros(len(prompts)))

    def _diverse(self, prompt: Tensor, processors: Sequence[Processor], begin: int) -> Generated:
        """The groups of diverse beam search, one after the other, taken in turns: best, best, …, second, …"""
        how = self.strategy.diversity
        assert how is not None
        diversity = Diversity(len(prompt), penalty=how.penalty, begin=begin)
        width = self.strategy.width // how.groups
        parts = []
        for _ in range(how.groups):
            found = self._generate(prompt, [*processors, diversity], begin, width)
            diversity.finish(found.tokens, vocabulary=self.ids.vocabulary)
            parts.append(found)
        tokens = torch.stack([p.tokens.reshape(len(prompt), width, -1) for p in parts], 2)
        scores = torch.stack([p.scores.reshape(len(prompt), width) for p in parts], 2)
        return Generated(tokens.flatten(0, 2), scores.flatten())

    def _ranked(self, prompt: Tensor, found: Generated) -> list[Ranked]:
        events = found.tokens.reshape(-1, self.ids.length)
        items = self.trie.items(events).reshape(len(prompt), -1).numpy()
        scores = found.scores.repeat_interleave(self.strategy.horizon).reshape(len(prompt), -1).numpy()
        alive = (items != DEAD) & (scores > _DEAD_BEAM)
        if self.strategy.order == "likelihood" or self._needs_likelihood:
            own = AuxiliaryModel(self.model, prompt).likelihood(found.tokens)
            scores = own.repeat_interleave(self.strategy.horizon).reshape(len(prompt), -1).numpy()
        return [self._order(i[a], s[a]) for i, s, a in zip(items, scores, alive, strict=True)]

    @property
    def _needs_likelihood(self) -> bool:
        """A reward for whole items is weighed against log p, which beams have at hand."""
        how = self.strategy.reward
        return how is not None and how.when == "items" and self.strategy.mode != "beam"

    def _order(self, items: np.ndarray, scores: np.ndarray) -> Ranked:
        if self.strategy.order == "vote":
            return by_votes(items)
        if self.strategy.order == "mbr":
            return by_expected_utility(items, self.ids.vectors.numpy())
        return (by_likelihood if self.strategy.order == "likelihood" else as_generated)(items, scores)
