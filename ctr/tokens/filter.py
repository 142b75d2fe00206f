"""Token filtering: events that a model shall not learn from, such as accidental clicks.

Two interventions: `remove` replaces the event's token by a learned vector, in training and in scoring;
`mask_loss` leaves the token and drops the term of the loss in which a model learns to predict the event.

Source: arXiv 2601.21571, token-level filtering.

ΣL events of all requests of a batch, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ctr.batch import SequenceBatch
from ctr.blocks.jagged import Jagged
from ctr.tokens.config import CLASSIFIER, TokenFilterConfig, TokensConfig
from features.dataset import DomainInfo, Manifest
from features.errors import ConfigError

# The bias that a classifier starts with, sigmoid(-2) = 0.12: no event is filtered.
_START = -2.0


def mask_loss(losses: Tensor, filtered: Tensor) -> Tensor:
    """The mean loss over the predicted events that are not filtered: Σ (1 − f_i) ℓ_i / Σ (1 − f_i).

    The forward pass does not change: a filtered event is still read as context of later ones.

    Source: arXiv 2601.21571, loss masking.

    Args:
        losses: (V,) floating point, ℓ_i of the i-th event that is predicted.
        filtered: (V,) bool, whether *that* event, the target and not the last one read, is filtered.

    Returns:
        A scalar; 0, with a gradient of 0, where nothing is left.

    Raises:
        ValueError: shapes or types that do not fit.

    Example:
        >>> mask_loss(torch.tensor([1.0, 5.0, 3.0]), torch.tensor([False, True, False]))
        tensor(2.)
    """
    if filtered.dtype != torch.bool or losses.shape != filtered.shape or losses.dim() != 1:
        raise ValueError(
            "losses and filtered must be (V,) and filtered bool, got "
            f"{tuple(losses.shape)} and {filtered.dtype} {tuple(filtered.shape)}; "
            "give one flag per predicted event"
        )
    kept = losses.masked_fill(filtered, 0.0)  # not a product: a filtered term may be infinite
    return kept.sum() / (~filtered).sum().clamp(min=1)


def column_scores(events: SequenceBatch, column: str) -> Tensor:
    """(ΣL,): the score of each event, the first number of its dense field `column`."""
    return events.dense[column][:, 0]


class TokenFilter(nn.Module):
    """Scores the events of one domain, and hides those that score more than the threshold.

    By column: the score is the column's value. By classifier: s_i = sigmoid(w · x_i + b) of the event's token
    x_i, or an MLP with one hidden layer of GELU.

        x'_i = (1 − g_i) x_i + g_i h,    g_i = [s_i > threshold],    h learned

    The classifier is trained by the model's own loss alone: min over w, b and h of E[ℓ(y, f(x'))]. The step
    g has no gradient, so the backward uses that of s instead (straight-through estimator): the score of an
    event rises where the loss would fall if the event were hidden. g is 0 or 1 in training too, so scoring
    hides what training hid.

    Source: arXiv 2601.21571, removal.
    Differs from the paper: its classifier is trained beforehand on labelled tokens; here labels can come in
    as a column of scores, and the classifier is for data without any.

    Args:
        config: `model.token_filter`.
        width: D.
    """

    def __init__(self, config: TokenFilterConfig, *, width: int) -> None:
        super().__init__()
        self.column = _column(config)
        self.threshold = config.threshold
        self.hidden_event = nn.Parameter(torch.randn(width) * 0.02)
        self.classifier = _classifier(width, config.hidden) if self.column is None else None

    def scores(self, tokens: Tensor, events: SequenceBatch) -> Tensor:
        """(ΣL,)."""
        if self.column is not None:
            return column_scores(events, self.column)
        assert self.classifier is not None
        scores: Tensor = self.classifier(tokens).squeeze(-1).float().sigmoid()
        return scores

    def filtered(self, tokens: Tensor, events: SequenceBatch) -> Tensor:
        """(ΣL,) bool: which events are filtered."""
        return self.scores(tokens, events) > self.threshold

    def forward(self, tokens: Tensor, events: SequenceBatch, contents: Tensor | None = None) -> Tensor:
        """(ΣL, D): the tokens, or the contents of the same events, hidden where the tokens are filtered."""
        scores = self.scores(tokens, events)
        step = (scores > self.threshold).to(scores.dtype)
        gate = (step + (scores - scores.detach())).to(tokens.dtype)[:, None]  # exactly 0 or 1
        shown = tokens if contents is None else contents
        return gate * self.hidden_event.to(tokens.dtype) + (1 - gate) * shown


def _classifier(width: int, hidden: int) -> nn.Sequential:
    last = nn.Linear(hidden or width, 1)
    nn.init.constant_(last.bias, _START)
    return nn.Sequential(*([nn.Linear(width, hidden), nn.GELU()] if hidden else []), last)


class TokenFilters(nn.Module):
    """The filters of all domains whose events are scored; none but with `mode: remove`.

    Args:
        manifest: the domains.
        config: `model.token_filter` and the width.

    Raises:
        ConfigError: a domain or a column that is not there.
    """

    def __init__(self, manifest: Manifest, config: TokensConfig) -> None:
        super().__init__()
        check_filter(manifest, config.token_filter)
        removes = config.token_filter.mode == "remove"
        scored = filtered_domains(manifest, config.token_filter) if removes else []
        self.scored = [i for i, domain in enumerate(manifest.domains) if domain in scored]
        self.filters = nn.ModuleList(
            TokenFilter(config.token_filter, width=config.d_model) for _ in self.scored
        )

    def forward(
        self,
        tokens: Sequence[Jagged],
        events: Sequence[SequenceBatch],
        contents: Sequence[Jagged] | None = None,
    ) -> list[Jagged]:
        """The sequences of all domains in the manifest's order, hidden where filtered; see `TokenFilter`."""
        shown = tokens if contents is None else contents
        result = list(shown)
        for i, hide in zip(self.scored, self.filters, strict=True):
            result[i] = tokens[i].with_values(hide(tokens[i].values, events[i], shown[i].values))
        return result


def filtered_domains(manifest: Manifest, config: TokenFilterConfig) -> list[str]:
    """The domains whose events are scored; none with `mode: off`."""
    return [] if config.mode == "off" else list(config.domains or manifest.domains)


def input_domains(manifest: Manifest, config: TokenFilterConfig) -> dict[str, DomainInfo]:
    """The domains as a model sees them: without the column that says which events to filter."""
    scored, column = filtered_domains(manifest, config), _column(config)
    return {
        domain: info.model_copy(update={"side": [c for c in info.side if c.name != column]})
        if domain in scored
        else info
        for domain, info in manifest.domains.items()
    }


def check_filter(manifest: Manifest, config: TokenFilterConfig) -> None:
    """Refuse names that the data set does not have, and choices that do not go together."""
    if unknown := sorted(set(config.domains) - set(manifest.domains)):
        raise ConfigError(
            f"model.token_filter.domains must name domains of {sorted(manifest.domains)}, got {unknown}"
        )
    if config.mode == "mask_loss" and config.by == CLASSIFIER:
        raise ConfigError(
            "model.token_filter.by must name a field of the events with mode mask_loss (a classifier trained "
            f"by a loss that it may drop would drop all of it), got {config.by!r}; name a field"
        )
    if config.by == CLASSIFIER:
        return
    for domain in filtered_domains(manifest, config):
        dense = sorted(c.name for c in manifest.domains[domain].side if c.kind == "dense")
        if config.by not in dense:
            raise ConfigError(
                f"model.token_filter.by must be classifier or a dense field of the events of {domain!r}, "
                f"{dense}, got {config.by!r}; add it to the domain's side in the spec, or name other domains"
            )


def _column(config: TokenFilterConfig) -> str | None:
    return None if config.by == CLASSIFIER else config.by
