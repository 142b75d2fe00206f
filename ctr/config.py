"""Every knob of a run on one page: plain data, from YAML, unknown keys refused."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    model_validator,
)

from ctr.metrics.table import Selection
from ctr.sparse_optim import check_name, read_options
from features.errors import ConfigError
from features.safe_yaml import apply_overrides, dump_yaml, load_yaml
from features.spec import explain

if TYPE_CHECKING:
    from ctr.sparse_optim.base import OptimizerOptions

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Sharding = Literal["auto", "table_wise", "row_wise", "column_wise"]


class Knobs(BaseModel):
    """Plain, immutable data; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TokenizerConfig(Knobs):
    """Non-sequence features → M tokens (HyFormer §3.3.1)."""

    kind: Literal["semantic", "auto"] = "semantic"
    tokens: Positive = 4  # auto: into how many tokens the concatenated features are cut
    hidden: Count = 0  # width of a hidden layer per token; 0 = one linear map


class EncoderConfig(Knobs):
    """How HyFormer represents a sequence at every layer (§3.4.1); two_stage: `library` goes before LONGER."""

    kind: Literal["transformer", "longer", "swiglu", "library"] = "longer"
    recent: Positive = 50  # longer: how many of the newest events are queries
    expansion: float = Field(default=2.0, gt=0)  # hidden width of its feed-forward over d_model
    architecture: str | None = None  # library: bert, llama, …, see docs/library-encoders.md
    options: dict[str, JsonValue] = Field(default={}, max_length=32)  # library: fields of its configuration


class LongerConfig(Knobs):
    """LONGER §2: token merge, queries, global tokens."""

    merge: Positive = 1  # adjacent events concatenated into one token
    inner_layers: Count = 0  # layers of the small Transformer inside a group (InnerTrans)
    queries: Literal["recent", "uniform", "learnable"] = "recent"
    num_queries: Positive = 32
    cls_tokens: Positive = 1
    events_see_request_globals: bool = False


class TwoStageConfig(Knobs):
    """Sequence first (LONGER), then feature interaction (RankMixer)."""

    mixer_layers: Positive = 2
    global_tokens: bool = True  # the NS tokens take part in reading the sequence


class NgramConfig(Knobs):
    """N-gram embedding of the IDs of behaviour events (arXiv 2601.21204; docs/ngram-and-filtering.md)."""

    fields: list[str] = []  # domain.field of one ID per event; empty = no n-grams
    max_order: int = Field(default=3, ge=2, le=8)  # N: n-grams of 2 … N events
    tables_per_order: Positive = 2  # K hashes of each order
    rows: Positive = 50_000  # of each sub-table, at least: the next sizes that fit
    dim: Count = 0  # width of a sub-embedding; 0 = the paper's E / ((N − 1) K)


class TokenFilterConfig(Knobs):
    """Which events a model is not to learn from (arXiv 2601.21571; docs/ngram-and-filtering.md)."""

    mode: Literal["off", "remove", "mask_loss"] = "off"  # mask_loss: in next-event training only
    domains: list[str] = []  # whose events are scored; empty = of all domains
    by: str = "classifier"  # or a dense field of the events, which is then no input of the model
    hidden: Count = 0  # classifier: width of a hidden layer; 0 = linear in the event's token
    threshold: float = 0.5  # events that score more are filtered


class ModelConfig(Knobs):
    """Which model, how wide and deep, and the named choices where a paper leaves room."""

    kind: Literal["hyformer", "longer", "two_stage"] = "hyformer"
    d_model: Positive = 64
    layers: Positive = 2
    heads: Positive = 4
    expansion: float = Field(default=2.0, gt=0)  # hidden width of feed-forward parts over their input
    dropout: Share = 0.0  # on tokens and hidden layers, never on attention weights
    feature_dropout: Share = 0.0  # whole embedding vectors of IDs replaced by zeros while training
    tokenizer: TokenizerConfig = TokenizerConfig()
    encoder: EncoderConfig = EncoderConfig()
    longer: LongerConfig = LongerConfig()
    two_stage: TwoStageConfig = TwoStageConfig()
    ngram: NgramConfig = NgramConfig()
    token_filter: TokenFilterConfig = TokenFilterConfig()
    queries: dict[str, Positive] = {}  # hyformer: query tokens per sequence; others get default_queries
    default_queries: Positive = 1
    norm: Literal["layer", "rms"] = "layer"
    attention_sink: bool = False  # hyformer: queries may also read nothing, so that amounts can be told
    aligned_start: bool = False  # initial weights in which a candidate recognises itself in the history
    pools: Literal["all", "own", "none"] = "all"  # what a query sees of the sequences' pools
    query_inputs: Literal["all", "candidate"] = "all"  # … and of the non-sequence tokens
    merge_sequences: bool = False  # the paper's ablation: one merged sequence
    update_ns_tokens: bool = True  # NS tokens carry on boosted to the next layer, or start from F again
    head_reads: Literal["all", "queries", "mean"] = "all"  # which tokens of the top layer the MLP reads
    head_hidden: list[Positive] = [64]
    dense_bins: Count = 0  # piecewise-linear encoding of dense values; 0 = the scaled value alone
    linear_shortcut: bool = False  # adds a linear map of all dense features to the logit
    time_gaps: bool = True  # whether events tell how long before the request they happened
    time_buckets: Positive = 32  # log2 buckets of the time gap event → request
    positions: Count = 0  # learnable positions counted from the newest event; 0 = none


COMMON_OPTIONS = ("eps", "betas", "weight_decay")  # of embedding rows' optimizers, not of each


class EmbeddingConfig(Knobs):
    """Embedding tables and their optimizer (touched rows only)."""

    # Of several processes, torch keeps equal copies, fbgemm and torchrec share; of one, torchrec is fbgemm.
    engine: Literal["auto", "torch", "fbgemm", "torchrec"] = "torch"
    sharding: Sharding = "auto"  # torchrec; auto: table_wise or row_wise, whichever the planner finds faster
    table_sharding: dict[str, Sharding] = {}  # … of single tables
    dim: Positive = 32
    init_std: float = Field(default=0.02, gt=0)
    optimizer: Annotated[str, AfterValidator(check_name)] = "rowwise_adagrad"  # of ctr.sparse_optim
    lr: float = Field(default=0.05, gt=0)
    # Of these an optimizer may have none; one that it lacks is refused.
    eps: float = Field(default=1e-8, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(default=0.0, ge=0)  # on touched rows
    optimizer_options: dict[str, JsonValue] = Field(default={}, max_length=32)  # further ones, of it alone

    def sparse_options(self) -> OptimizerOptions:
        """The options of the optimizer."""
        common = {name: getattr(self, name) for name in COMMON_OPTIONS}
        return read_options(
            self.optimizer, common=common, changed=self._changed(), own=self.optimizer_options
        )

    def _changed(self) -> dict[str, Any]:
        """Options of several optimizers that do not have their defaults."""
        fields = type(self).model_fields
        return {
            name: value for name in COMMON_OPTIONS if (value := getattr(self, name)) != fields[name].default
        }

    @model_validator(mode="after")
    def _has_these_options(self) -> Self:
        if self._changed() or self.optimizer_options:  # defaults need no check, and no import of torch
            self.sparse_options()
        return self


class OptimizerConfig(Knobs):
    """AdamW for the dense parameters."""

    lr: float = Field(default=1e-3, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    clip_norm: float | None = Field(default=1.0, gt=0)
    schedule: Literal["constant", "cosine", "linear"] = "cosine"  # of dense and sparse rate alike
    warmup_steps: Count = 100
    final_share: float = Field(default=0.05, ge=0, le=1)  # of the rate at the last step
    ema_decay: Share = 0.0  # 0 = off; else evaluation and checkpoints also hold averaged dense weights
    dense_staleness: Literal[0, 1] = 0  # 1: dense gradients are applied one step later (HyFormer §3.8.2)


class LoaderConfig(Knobs):
    """How requests become batches; a pure function of (seed, epoch, step)."""

    batch_rows: Positive = 1024  # at most this many rows (a single longer request still fits)
    order: Literal["shuffle", "time"] = "shuffle"
    window: Positive = 65536  # requests shuffled together
    workers: Positive = 1  # background threads
    prefetch: Positive = 4  # batches made ahead
    micro_batches: Positive = 1  # parts in which a step computes its batch: less memory, the same update
    max_len: dict[str, Positive] = {}  # shorter histories than the data set holds


class TrainConfig(Knobs):
    """The training loop."""

    data: Literal["train", "train+valid"] = "train"  # train+valid: the final fit, nothing left to validate on
    epochs: Positive = 1
    max_steps: Positive | None = None
    evaluate_every: Positive | None = None  # steps; None = at the end of each epoch
    early_stopping: Count = 0  # evaluations without a better value before it stops; 0 = off
    metric: Selection = "auc"  # an entry of ctr.metrics.table, or several with one direction: auc+gauc
    precision: Literal["fp32", "bf16"] = "fp32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    recompute: bool = False  # keep only the inputs of layers for backward: less memory, a third more time
    compile: bool = False  # torch.compile of feed-forward blocks: seconds at the start, for long jobs
    checkpoint_every: Positive | None = None  # steps; an evaluation always saves
    keep_last: Positive = 2
    save_in_background: bool = False  # training waits for a copy in memory only; a thread writes
    non_finite: Literal["stop", "skip"] = "stop"
    max_skipped: Positive = 3  # skip: at most so many in a row


class DistributedConfig(Knobs):
    """How the processes of a job work together; of no effect in one process."""

    bucket_mb: float = Field(default=4.0, gt=0)  # dense gradients that travel together, MiB
    timeout: float = Field(default=600.0, gt=0)  # seconds a process waits for the others before it gives up


class AdapterConfig(Knobs):
    """Low-rank adapters on the dense weights of a finished run, which stay as they are (LoRA)."""

    base: str  # its run directory
    rank: Positive = 8
    alpha: float = Field(default=16.0, gt=0)  # an adapter's output counts alpha / rank times
    targets: list[str] = Field(default=["*"], min_length=1)  # names of linear maps; * stands for anything


class TrackingConfig(Knobs):
    """Where metrics go besides the journal."""

    uri: str | None = "auto"  # sqlite beside the runs; null = journal only; else an MLflow tracking URI
    experiment: str = "ctr"
    tags: dict[str, str] = {}
    log_every: Positive = 20  # steps between training rows in the journal
    system_every: float = Field(default=10.0, gt=0)  # seconds between memory and CPU samples


class PeriodConfig(Knobs):
    """Which stretch of the data set's time a run sees (ctr.loader.periods)."""

    windows: Positive = 1  # the test part in so many windows, each tested by a training that ends before it
    window: Count = 0  # which of them
    train_fraction: float = Field(default=1.0, gt=0, le=1)  # the newest part of the training requests


class RunConfig(Knobs):
    """One run: data set, model, training, tracking."""

    dataset: str
    run: str  # the run directory
    seed: int = 1
    drop: list[str] = []  # features, domains or domain.side fields to leave out; * stands for anything
    period: PeriodConfig = PeriodConfig()
    model: ModelConfig = ModelConfig()
    embedding: EmbeddingConfig = EmbeddingConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    loader: LoaderConfig = LoaderConfig()
    train: TrainConfig = TrainConfig()
    distributed: DistributedConfig = DistributedConfig()
    tracking: TrackingConfig = TrackingConfig()
    lora: AdapterConfig | None = None  # adapt a finished run; None = all weights are learned


def load_config(path: Path | str, overrides: list[str] | None = None) -> RunConfig:
    """Read a run configuration and apply `a.b=1` overrides.

    Raises:
        ConfigError: naming every wrong key with the value that came.
    """
    return parse_config(apply_overrides(load_yaml(Path(path)), overrides or []), what=str(path))


def parse_config(data: dict[str, Any], *, what: str = "config") -> RunConfig:
    """Build a RunConfig from plain data."""
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{what} is not valid:\n{explain(error)}") from None


def dump_config(config: RunConfig) -> str:
    """The resolved configuration as YAML."""
    return dump_yaml(config.model_dump(mode="json"))
