"""Every knob of next-behaviour generation: a run's own, those of semantic IDs, decoding and evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, JsonValue, model_validator

from ctr.config import RunConfig
from ctr.models.registry import model_config
from ctr.options.knobs import Count, Few, Knobs, Positive, Share
from ctr.options.overrides import change
from ctr.options.reading import options_from
from ctr.tokens.config import TokenFilterConfig
from features.names import check_name
from features.safe_yaml import load_yaml


class SemanticIdConfig(Knobs):
    """Items as short codes: residual k-means over a trained run's item embeddings."""

    run: str  # its run directory
    table: str = "item"
    codes: list[Positive] = Field(default=[128, 128], min_length=1, max_length=8)  # clusters of each level


class GeneratorConfig(Knobs):
    """The language model over semantic IDs, an architecture of the Transformer library."""

    architecture: str = "llama"  # one that sees older events only, or t5 (docs/generation.md)
    d_model: Positive = 64
    layers: Few = 2
    heads: Positive = 4
    expansion: float = Field(default=2.0, gt=0)
    dropout: Share = 0.1
    options: dict[str, JsonValue] = Field(default={}, max_length=32)  # fields of the library's configuration
    domain: str  # whose events are the sequence
    event: str = "item"  # the field of its events that names the item
    candidate: str = "item"  # the feature of a candidate that names the item
    targets: Literal["shown", "positive"] = "positive"  # which candidates count as the next behaviour
    every: Count = 0  # events between two training requests of a user; 0 = as many as a history holds
    token_filter: TokenFilterConfig = TokenFilterConfig()  # off or mask_loss


class ContrastiveConfig(Knobs):
    """Expert minus amateur."""

    amateur: str  # run directory of a weaker model with the same semantic IDs
    weight: float = Field(default=0.5, ge=0)
    plausible: float = Field(default=0.1, gt=0, le=1)  # … among tokens of at least this share of the best


class RewardConfig(Knobs):
    """Re-weighting by the click model; which one, evaluation.ranker says."""

    weight: float = Field(default=1.0, ge=0)
    when: Literal["tokens", "items"] = "items"  # tokens: at every step (FUDGE); items: the finished ones


class DiversityConfig(Knobs):
    """Diverse beam search."""

    groups: Positive = 4
    penalty: float = Field(default=1.0, ge=0)


class StrategyConfig(Knobs):
    """One way to decode, as far as it differs from constrained beam search."""

    mode: Literal["greedy", "beam", "sample"] = "beam"
    width: Positive = 40  # beams, or draws
    horizon: Positive = 1  # greedy: events in a row
    constrained: bool = True  # existing items only
    temperature: float = Field(default=1.0, gt=0)
    top_k: Count = 0
    top_p: float = Field(default=1.0, gt=0, le=1)
    epsilon: Share = 0.0  # tokens less probable than this are not drawn
    order: Literal["generated", "likelihood", "vote", "mbr"] = "generated"  # of the items found
    diversity: DiversityConfig | None = None
    contrastive: ContrastiveConfig | None = None
    reward: RewardConfig | None = None
    ensemble: list[str] = Field(default=[])  # run directories whose probabilities are averaged with the run's
    draft: str | None = None  # run directory of a small model that proposes tokens (speculative)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        """Choices that the mode does not have are mistakes."""
        wrong = {
            "horizon": self.horizon > 1 and self.mode != "greedy",
            "temperature, top_k, top_p, epsilon": self.mode != "sample"
            and (self.temperature, self.top_k, self.top_p, self.epsilon) != (1.0, 0, 1.0, 0.0),
            "diversity": self.diversity is not None
            and (self.mode != "beam" or self.width % self.diversity.groups),
            "draft": self.draft is not None and self.mode == "beam",
            "order: vote or mbr": self.order in ("vote", "mbr") and self.mode != "sample",
            "reward with constrained: false": self.reward is not None and not self.constrained,
        }
        if bad := [name for name, is_wrong in wrong.items() if is_wrong]:
            raise ValueError(f"{'; '.join(bad)} does not go with mode {self.mode} and width {self.width}")
        return self


class GenerationConfig(Knobs):
    """What is generated for, and how it is judged."""

    split: Literal["valid", "test"] = "test"
    requests: Literal["last", "all"] = "last"  # last: of each user in the split
    limit: Count = 0  # at most so many requests, spread evenly; 0 = all
    batch_requests: Positive = 64
    items: Positive = 20  # ranked items per request
    exclude_seen: bool = True  # not what the history holds already
    ks: list[Positive] = Field(default=[10, 20], min_length=1)
    neighbours: Positive = 100  # item-kNN: of each item
    recent: Positive = 5  # item-kNN: so many of the newest events
    ranker: str | None = None  # run directory of the click model that re-ranks; None = no re-ranking
    # Its candidate features that are unknown for items that were not shown; * stands for anything.
    ranker_blind: list[str] = Field(default=[])


class GenerateConfig(RunConfig):
    """One generator: a run that trains it, and the strategies that decode with it."""

    ids: SemanticIdConfig
    generator: GeneratorConfig
    strategies: dict[str, StrategyConfig] = Field(default={"beam": StrategyConfig()}, min_length=1)
    strategy: str = "beam"  # the one that `ctr generate decode` uses
    generation: GenerationConfig = GenerationConfig()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name in self.strategies:
            check_name(name, "strategy")
        if self.strategy not in self.strategies:
            raise ValueError(f"strategy must be one of {', '.join(self.strategies)}, got {self.strategy!r}")
        if self.model != model_config() or self.lora is not None or self.init is not None:
            raise ValueError(
                "model, lora and init belong to click models; describe the generator under generator"
            )
        if self.tasks is not None:
            raise ValueError(f"tasks must be null for a generator, got kind {self.tasks.kind}; delete it")
        if self.train.distill is not None:
            raise ValueError("train.distill belongs to click models; delete it")
        if self.train.metric != "ne":
            raise ValueError(f"train.metric must be ne for a generator, got {self.train.metric!r}")
        if self.loader.id_dropout:
            raise ValueError(
                "loader.id_dropout belongs to click models: a generator predicts the IDs; delete it"
            )
        if self.generator.token_filter.mode == "remove":
            raise ValueError("generator.token_filter.mode must be off or mask_loss, got 'remove'")
        return self


def load_generate_config(path: Path, overrides: list[str] | None = None) -> GenerateConfig:
    """Read a generator's configuration and apply `a.b=1` overrides.

    Raises:
        ConfigError: naming every wrong key with the value that came.
    """
    data: dict[str, Any] = change(GenerateConfig, load_yaml(path), overrides or [])
    return options_from(GenerateConfig, data, what=str(path))
