"""A model beside the one that generates: its own probabilities of the tokens that were generated.

Ensembles, contrastive decoding and orders by likelihood ask it. The prompt is read once and its keys and
values are kept; the generated tokens, a few per sequence, are read again at each step, so that nothing has to
follow how beam search reorders its beams.

R requests, Q sequences (R · width, those of a request side by side), T generated tokens, V tokens in all.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from ctr.generate.model import NextBehaviour
from ctr.generate.semantic_ids import BOS, PAD


class AuxiliaryModel:
    """One model with one batch of prompts.

    Args:
        model: in evaluation mode.
        prompt: (R, L) int64, padded in front.
    """

    def __init__(self, model: NextBehaviour, prompt: Tensor) -> None:
        self.lm, self.both_sides = model.lm, model.both_sides
        self.prompt, self.mask = prompt, (prompt != PAD).long()
        if self.both_sides:
            self.encoded = self.lm.get_encoder()(input_ids=prompt, attention_mask=self.mask).last_hidden_state
        else:
            read = self.lm(
                input_ids=prompt,
                attention_mask=self.mask,
                position_ids=(self.mask.cumsum(1) - 1).clamp(min=0),
                use_cache=True,
                logits_to_keep=1,
            )
            self.cache, self.first = read.past_key_values, read.logits[:, -1:]

    def log_probs(self, generated: Tensor) -> Tensor:
        """(Q, T + 1, V): of the token at each generated position, and of the next one."""
        width = len(generated) // len(self.prompt)
        logits = self._decoder(generated, width) if self.both_sides else self._continued(generated, width)
        return logits.float().log_softmax(-1)

    def likelihood(self, generated: Tensor) -> Tensor:
        """(Q,): log p of the generated tokens."""
        found = self.log_probs(generated)[:, :-1]
        return found.gather(2, generated[..., None])[..., 0].sum(1)

    def _continued(self, generated: Tensor, width: int) -> Tensor:
        first = self.first.repeat_interleave(width, 0)
        if not generated.shape[1]:
            return first
        cache = copy.deepcopy(self.cache)
        cache.batch_repeat_interleave(width)
        mask = torch.cat([self.mask.repeat_interleave(width, 0), torch.ones_like(generated)], 1)
        position = (mask.cumsum(1) - 1)[:, -generated.shape[1] :]
        read = self.lm(
            input_ids=generated,
            attention_mask=mask,
            position_ids=position,
            past_key_values=cache,
            use_cache=True,
        )
        return torch.cat([first, read.logits], 1)

    def _decoder(self, generated: Tensor, width: int) -> Tensor:
        begin = generated.new_full((len(generated), 1), BOS)
        logits: Tensor = self.lm(
            encoder_outputs=(self.encoded.repeat_interleave(width, 0),),
            attention_mask=self.mask.repeat_interleave(width, 0),
            decoder_input_ids=torch.cat([begin, generated], 1),
            use_cache=False,
        ).logits
        return logits
