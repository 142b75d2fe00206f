"""Options that every model has. A model adds its own in its own file."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from ctr.options.knobs import Few, KindSection, Positive
from ctr.tokens.config import AutoConfig, TokensConfig
from features.dataset import Manifest


class ModelConfig(TokensConfig, KindSection):
    """How wide and deep, how tokens are made, and what the head reads."""

    layers: Few = 2
    heads: Positive = 4
    expansion: float = Field(default=2.0, gt=0)  # hidden width of feed-forward parts over their input
    aligned_start: bool = False  # initial weights in which a candidate recognises itself in the history
    head_reads: Literal["all", "mean"] = "all"  # the top layer's tokens side by side, or their mean
    head_hidden: list[Positive] = Field(default=[64], max_length=100)
    linear_shortcut: bool = False  # adds a linear map of all dense features to the logit

    @model_validator(mode="after")
    def _gates_are_passed(self) -> Self:
        if self.column_gates is not None and self.linear_shortcut:
            raise ValueError("linear_shortcut passes by column_gates; drop one of both")
        return self

    def check(self, manifest: Manifest) -> None:
        """Refuse what does not fit a data set.

        Raises:
            ConfigError: naming the option.
        """

    def without_sequences(self, gone: Collection[str]) -> Self:
        """The options for a data set that lacks some of its sequences."""
        return self

    def tokens_beside_ns(self, sequences: Sequence[str]) -> int | None:
        """How many tokens are mixed with the M tokens of features, so that all together must divide d_model.

        None for a model that does not mix tokens.
        """
        return None

    def ns_tokens(self, manifest: Manifest) -> int:
        """M."""
        return self.tokenizer.tokens if isinstance(self.tokenizer, AutoConfig) else len(manifest.tokens)
