"""Every knob of a run on one page, but those of its model: plain data, from YAML, unknown keys refused.

What all models have is in ctr.models.config and ctr.tokens.config, what one model has in its own file.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    JsonValue,
    SerializeAsAny,
    ValidationInfo,
    model_validator,
)

from ctr.metrics.table import Selection
from ctr.models.config import ModelConfig
from ctr.models.heads.config import TasksConfig
from ctr.models.heads.heads import HEADS
from ctr.models.registry import KINDS, model_config
from ctr.options.knobs import DROP_UNUSED, Count, Few, Knobs, Positive, Seed, Share, default_of
from ctr.options.overrides import change
from ctr.options.reading import options_from
from ctr.options.training import DistillConfig, LossConfig, SwaConfig, named_loss
from ctr.sparse_optim import check_optimizer, has_option, read_options
from features.safe_yaml import dump_yaml, load_yaml

if TYPE_CHECKING:
    from ctr.sparse_optim.base import OptimizerOptions

Sharding = Literal["auto", "table_wise", "row_wise", "column_wise"]
CalibrationKind = Literal["none", "platt", "isotonic"]

COMMON_OPTIONS = ("eps", "betas", "weight_decay")  # of embedding rows' optimizers, not of each


class PmiStart(Knobs):
    """Initial rows from which values met in training, for tables that number the same in their own ways."""

    rows: Positive = 200_000  # newest training impressions that are counted
    last: Positive = 200  # newest events of their histories
    prior: float = Field(default=20.0, gt=0)  # meetings by chance that evidence has to outweigh
    shift: float = Field(default=1.0, ge=1)  # k of max(0, PMI − log k)
    min_gain: float = Field(default=0.001, gt=0)  # nats a meeting by which a field is linked
    random: Share = 0.1  # of a row's squared length
    align: bool = True  # the maps of linked tables, queries and keys start equal, as with model.aligned_start


class EmbeddingConfig(Knobs):
    """Embedding tables and their optimizer (touched rows only)."""

    # Of several processes, torch keeps equal copies, fbgemm and torchrec share; of one, torchrec is fbgemm.
    engine: Literal["auto", "torch", "fbgemm", "torchrec"] = "torch"
    sharding: Sharding = "auto"  # torchrec; auto: table_wise or row_wise, whichever the planner finds faster
    table_sharding: dict[str, Sharding] = {}  # … of single tables
    dim: Positive = 32
    init_std: float = Field(default=0.02, gt=0)
    optimizer: Annotated[str, AfterValidator(check_optimizer)] = "rowwise_adagrad"  # of ctr.sparse_optim
    lr: float = Field(default=0.05, gt=0)
    # Of these an optimizer may have none; one that it lacks is refused.
    eps: float = Field(default=1e-8, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(default=0.0, ge=0)  # on touched rows
    optimizer_options: dict[str, JsonValue] = Field(default={}, max_length=32)  # further ones, of it alone
    # Tables drawn anew at the start of each epoch but the first (MEDA); auto: those whose rows see few
    # training impressions (ctr.embedding.restart).
    restart: Literal["auto"] | list[str] = "auto"
    pmi_start: PmiStart | None = None  # where linked tables start; None = each row at random

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
    def _has_these_options(self, info: ValidationInfo) -> Self:
        changed = self._changed()
        if not changed and not self.optimizer_options:  # defaults need no check, and no import of torch
            return self
        if info.context is DROP_UNUSED:
            unused = [name for name in changed if not has_option(self.optimizer, name)]
            return self.model_copy(update={n: default_of(type(self).model_fields[n]) for n in unused})
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


MANY_REQUESTS = 2**24  # to draw their order takes about a second


class LoaderConfig(Knobs):
    """How requests become batches; a pure function of (seed, epoch, step)."""

    batch_rows: Positive = 1024  # at most this many rows (a single longer request still fits)
    # shuffle: windows in random order, their requests shuffled; windows: in order of time, their requests
    # shuffled, so that the newest ones are learned last; time: nothing is shuffled
    order: Literal["shuffle", "windows", "time"] = "shuffle"
    window: Positive = 65536  # requests shuffled together
    plan: Literal["auto", "requests", "windows"] = "auto"  # how batches are cut (ctr/loader/plan.py)
    workers: Few = 1  # background threads
    prefetch: Few = 4  # batches made ahead
    micro_batches: Few = 1  # parts in which a step computes its batch: less memory, the same update
    max_len: dict[str, Positive] = {}  # shorter histories than the data set holds
    id_dropout: dict[str, Share] = {}  # ID table → probability that an ID is unknown, in training alone

    def decided_plan(self, requests: int) -> Literal["requests", "windows"]:
        """The plan of so many requests: `auto` draws the order of all of them while that is quick."""
        if self.plan != "auto":
            return self.plan
        return "windows" if requests > MANY_REQUESTS else "requests"


class TrainConfig(Knobs):
    """The training loop."""

    data: Literal["train", "train+valid"] = "train"  # train+valid: the final fit, nothing left to validate on
    epochs: Positive = 1
    max_steps: Positive | None = None
    evaluate_every: Positive | None = None  # steps; None = at the end of each epoch
    early_stopping: Count = 0  # evaluations without a better value before it stops; 0 = off
    hidden_rows: Count = 4096  # of each part, scored with each ID column hidden at an evaluation; 0 = off
    metric: Selection = "auc"  # an entry of ctr.metrics.table, or several with one direction: auc+gauc
    # Of the rows with label 0, drawn anew each epoch; predictions are of all rows (ctr.loader.negatives).
    negatives: float = Field(default=1.0, gt=0, le=1)
    loss: Annotated[LossConfig, BeforeValidator(named_loss)] = LossConfig()
    distill: DistillConfig | None = None  # learn from other runs too (ctr.loader.teacher)
    swa: SwaConfig | None = None  # average the weights of late steps, instead of optimizer.ema_decay
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


class InitConfig(Knobs):
    """A run to start from: rows go to those of the same values, dense weights to those of their names."""

    run: str  # its directory
    checkpoint: Annotated[str, BeforeValidator(str)] = "best"  # best, last or a step number
    dataset: str | None = None  # where its data set is now, if it moved; asked for where rows were renumbered
    optimizer: Literal["keep", "drop"] = "keep"  # the state of both optimizers, for what is taken over
    allow: list[str] = []  # names of what may differ, as the refusal gives them; * stands for anything


class AdapterConfig(Knobs):
    """Low-rank adapters on the dense weights of a finished run, which stay as they are (LoRA)."""

    base: str | None = None  # its run directory; None: the run that init names
    rank: Few = 8
    alpha: float = Field(default=16.0, gt=0)  # an adapter's output counts alpha / rank times
    targets: list[str] = Field(default=["*"], min_length=1)  # names of linear maps; * stands for anything


class TrackingConfig(Knobs):
    """Where metrics go besides the journal."""

    uri: str | None = "auto"  # sqlite beside the runs; null = journal only; else an MLflow tracking URI
    experiment: str = "ctr"
    tags: dict[str, str] = {}
    log_every: Positive = 20  # steps between training rows in the journal
    system_every: float = Field(default=10.0, gt=0)  # seconds between memory and CPU samples
    model_mb: Count = 500  # ctr evaluate logs checkpoints up to this size as MLflow models; 0 = never


class PeriodConfig(Knobs):
    """Which stretch of the data set's time a run sees (ctr.loader.periods)."""

    windows: Few = 1  # the test part in so many windows, each tested by a training that ends before it
    window: Count = 0  # which of them
    train_fraction: float = Field(default=1.0, gt=0, le=1)  # the newest part of the training requests


class RunConfig(Knobs):
    """One run: data set, model, training, tracking."""

    dataset: str
    run: str  # the run directory
    seed: Seed = 1
    drop: list[str] = []  # features, domains or domain.side fields to leave out; * stands for anything
    period: PeriodConfig = PeriodConfig()
    model: Annotated[SerializeAsAny[ModelConfig], KINDS] = Field(default_factory=model_config)
    # How the data set's labels are learned together; None: its first label alone.
    tasks: Annotated[SerializeAsAny[TasksConfig] | None, HEADS] = None
    embedding: EmbeddingConfig = EmbeddingConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    loader: LoaderConfig = LoaderConfig()
    train: TrainConfig = TrainConfig()
    # What makes probabilities of the logits, fitted on the validation part: ctr.training.calibration.
    calibration: CalibrationKind = "none"
    distributed: DistributedConfig = DistributedConfig()
    tracking: TrackingConfig = TrackingConfig()
    init: InitConfig | None = None  # start from a finished run; None = from fresh weights
    lora: AdapterConfig | None = None  # adapt a finished run; None = all weights are learned

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        if self.lora is not None and (self.lora.base is None) == (self.init is None):
            raise ValueError(
                "lora must adapt one run: give lora.base, or init.run with options of how to start from it, "
                f"got lora.base {self.lora.base!r} and {'no init' if self.init is None else 'init too'}"
            )
        if self.train.swa is not None and self.optimizer.ema_decay:
            raise ValueError("a run keeps one average: optimizer.ema_decay or train.swa; drop one of both")
        if self.embedding.pmi_start is not None and (self.init is not None or self.lora is not None):
            raise ValueError("a run starts from another one or from embedding.pmi_start; drop one of both")
        return self


def load_config(path: Path | str, overrides: list[str] | None = None) -> RunConfig:
    """Read a run configuration and apply `a.b=1` overrides.

    Raises:
        ConfigError: naming every wrong key with the value that came.
    """
    return parse_config(change(RunConfig, load_yaml(Path(path)), overrides or []), what=str(path))


def parse_config(data: dict[str, Any], *, what: str = "config") -> RunConfig:
    """Build a RunConfig from plain data."""
    return options_from(RunConfig, data, what=what)


def dump_config(config: RunConfig) -> str:
    """The resolved configuration as YAML."""
    return dump_yaml(config.model_dump(mode="json"))
