"""DIN: an attention network weighs every event by the candidate; the weights are not normalised.

    a_j = MLP([q; e_j; q − e_j; q ⊙ e_j])        hidden widths 80, 40
    u   = Σ a_j e_j                                  no softmax: Σ a_j keeps how strong an interest is, if
                                                     what reads u does (model.head_norm: all)

The first layer is computed in parts, since W [q; e; q − e; q ⊙ e] = (W₁ + W₃) q + (W₂ − W₃) e + W₄ (q ⊙ e).

Shared by the candidates of a request: (W₂ − W₃) e_j.

Source: DIN (arXiv 1706.06978), section 4.3; Dice, section 5.3. The paper feeds q, e and their outer
product; the form with q − e and q ⊙ e is that of the authors' code, as are the widths 80 and 40 (Figure 2:
one layer of 36). Differs: `recent` bounds the history; the MLP that reads u has GELU, the paper's PReLU or
Dice.

B candidates, L events, P pairs of both, D width, h width of the first layer.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ctr.blocks.linear import Linear
from ctr.models.sequence.pairs import Pairs
from ctr.models.sequence.side import Candidates, SequenceSide, SideConfig, SideEvents, SideSizes, SideState
from ctr.options.knobs import Count, Positive

DinActivation = Literal["prelu", "dice", "sigmoid"]


class DinConfig(SideConfig):
    """The attention network."""

    kind: Literal["din"] = "din"
    hidden: list[Positive] = [80, 40]
    activation: DinActivation = "dice"
    softmax: bool = False  # the authors' code: softmax(a / √D)
    recent: Count = 0  # only the newest so many events; 0 = all

    def build(self, sizes: SideSizes) -> SequenceSide:
        """A new side."""
        return Din(self, sizes)


class Dice(nn.Module):
    """y = p x + (1 − p) α x, p = σ((x − E[x]) / √(Var[x] + ε)): a PReLU whose bend follows the data.

    Moments are those of the pairs of a batch while training, running ones otherwise; α starts at 0.

    Source: DIN (arXiv 1706.06978), section 5.3.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.normalise = nn.BatchNorm1d(width, eps=1e-9, momentum=0.01, affine=False)
        self.alpha = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """(P, h) to (P, h); fewer than two rows are told by the running moments."""
        few = self.training and len(x) < 2
        normalise = self.normalise
        scaled = (
            (x - normalise.running_mean) * (normalise.running_var + normalise.eps).rsqrt()
            if few and normalise.running_mean is not None and normalise.running_var is not None
            else normalise(x)
        )
        return x * torch.addcmul(self.alpha, scaled.sigmoid(), 1 - self.alpha)  # α + p (1 − α) in one pass


def activation_of(name: DinActivation, width: int) -> nn.Module:
    """The activation of a layer."""
    if name == "dice":
        return Dice(width)
    return nn.PReLU(width) if name == "prelu" else nn.Sigmoid()


class Din(SequenceSide):
    """See the module."""

    exports = True
    read_by_weight = ("of_all",)

    def __init__(self, config: DinConfig, sizes: SideSizes) -> None:
        super().__init__()
        self.config = config
        first, *rest = config.hidden or [1]
        self.of_all = Linear(4 * sizes.width, first)  # [W₁ W₂ W₃ W₄]
        layers: list[nn.Module] = []
        width = first
        for hidden in [*rest, 1] if config.hidden else []:
            layers += [activation_of(config.activation, width), Linear(width, hidden)]
            width = hidden
        self.network = nn.Sequential(*layers)

    def encode(self, events: SideEvents) -> SideState:
        """(W₂ − W₃) e_j beside e_j, (ΣL, h + D)."""
        tokens = (events.newest(self.config.recent) if self.config.recent else events).tokens
        _, w2, w3, _ = self.of_all.weight.chunk(4, dim=1)
        mapped = tokens.values @ (w2 - w3).T
        return SideState(events=tokens.with_values(torch.cat([mapped, tokens.values], dim=-1)))

    def read(self, state: SideState, candidates: Candidates) -> Tensor:
        """(B, 1, D)."""
        assert state.events is not None
        query = candidates.query
        width = query.shape[1]
        mapped, values = state.events.values.split([state.events.values.shape[1] - width, width], dim=-1)
        pairs = Pairs.of(state.events, candidates.requests)
        w1, _, w3, w4 = self.of_all.weight.chunk(4, dim=1)
        events = pairs.of_events(values)
        first = pairs.of_events(mapped) + (pairs.of_candidates(query) * events) @ w4.T
        first = first + pairs.of_candidates(query @ (w1 + w3).T + self.of_all.bias)
        weights = self.network(first)
        if self.config.softmax:
            weights = pairs.softmax(weights * width**-0.5)
        return pairs.sum(weights * events)[:, None]
