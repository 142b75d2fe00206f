"""The dense optimizer, the learning-rate schedule and the average of weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ctr.config import OptimizerConfig, RunConfig, SwaConfig
from ctr.training.parameter_kinds import parameter_kinds

_MOMENTS = ("exp_avg", "exp_avg_sq")  # of AdamW, each in the form of its weight


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW; weight decay on the weights of maps, not on biases, norms, embeddings and tokens."""
    kinds, numbers = parameter_kinds(model), _numbers(model)
    groups = []
    for decayed in (True, False):
        names = [name for name, kind in kinds.items() if (kind == "map") == decayed]
        groups.append(
            {
                "params": [model.get_parameter(name) for name in names],
                "weight_decay": config.weight_decay if decayed else 0.0,
                "numbers": [numbers[name] for name in names],
            }
        )
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)


def _numbers(model: nn.Module) -> dict[str, int]:
    """The number of each parameter in checkpoints: matrices first, then vectors, in the model's order."""
    ordered = sorted(model.named_parameters(), key=lambda named: named[1].ndim < 2)
    return {name: number for number, (name, _) in enumerate(ordered)}


def rate_factor(step: int, total_steps: int, config: OptimizerConfig) -> float:
    """What multiplies the learning rates at a step (0-based): warm-up, then constant, cosine or linear.

    Example:
        >>> rate_factor(0, 100, OptimizerConfig(warmup_steps=10))
        0.1
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return 1.0
    done = min(1.0, (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps))
    shape = 0.5 * (1 + math.cos(math.pi * done)) if config.schedule == "cosine" else 1 - done
    return config.final_share + (1 - config.final_share) * shape


def parameter_names(model: nn.Module) -> list[str]:
    """The parameters by their numbers in `optimizer_tensors`."""
    return list(_numbers(model))


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as flat names: `<parameter number>.<state name>`."""
    state, numbers = optimizer.state_dict()["state"], _numbers_of(optimizer)
    return {
        f"{numbers[i]}.{name}": torch.as_tensor(value)
        for i, entry in state.items()
        for name, value in entry.items()
    }


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Restore what `optimizer_tensors` gave."""
    index = {number: i for i, number in enumerate(_numbers_of(optimizer))}
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, name = key.split(".", 1)
        # A copy: the optimizer changes it in place, and stored tensors lie in a file.
        state.setdefault(index[int(number)], {})[name] = value.clone()
    if any(len(entry) != len(_MOMENTS) + 1 for entry in state.values()):
        raise ValueError(f"the optimizer must hold step, {', '.join(_MOMENTS)} of a weight, or nothing of it")
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def possible_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What `optimizer_tensors` may give once all weights were updated: names, shapes, dtypes, no values."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    found: dict[str, Tensor] = {}
    for number, parameter in zip(_numbers_of(optimizer), parameters, strict=True):
        found |= {f"{number}.{name}": parameter.detach() for name in _MOMENTS}
        found[f"{number}.step"] = torch.zeros(())
    return found


def _numbers_of(optimizer: torch.optim.Optimizer) -> list[int]:
    """The number of each parameter, in the optimizer's own order."""
    return [number for group in optimizer.param_groups for number in group["numbers"]]


class AveragedWeights:
    """Exponential moving average of the dense weights: average ← d·average + (1 − d)·weight.

    d rises with the steps as min(decay, (1 + n) / (10 + n)), so that early averages forget the start.
    """

    goes_on = True  # in a run that starts from another one and keeps its optimizer

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.average = {name: p.detach().clone() for name, p in model.named_parameters()}

    def begin(self, total_steps: int) -> None:
        """Hear how many steps the run has, before the first update."""

    def share(self) -> float:
        """What the weights of this update count beside the average so far."""
        return 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights after an optimizer step."""
        self.updates += 1
        if share := self.share():
            weights = [p.detach() for p in model.parameters()]
            torch._foreach_lerp_(list(self.average.values()), weights, share)

    @torch.no_grad()
    def load(self, average: dict[str, Tensor]) -> None:
        """Take on a saved average."""
        for name, tensor in self.average.items():
            tensor.copy_(average[name])

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """The model with the averaged weights inside, its own again afterwards."""
        own = {name: p.detach().clone() for name, p in model.named_parameters()}
        self._copy_into(model, self.average)
        try:
            yield
        finally:
            self._copy_into(model, own)

    @staticmethod
    @torch.no_grad()
    def _copy_into(model: nn.Module, weights: dict[str, Tensor]) -> None:
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])


class EqualAverage(AveragedWeights):
    """Stochastic weight averaging: the mean of the weights after the updates f, f + every, f + 2 every, …

    f is the first update at or behind `start` of the run's steps. Until then the average is the weights.

    Source: Izmailov et al., Averaging Weights Leads to Wider Optima and Better Generalization (UAI 2018),
    algorithm 1. Differs: the learning rate is what the schedule says, constant or falling, not cyclical.
    """

    goes_on = False  # it is of the end of one run

    def __init__(self, model: nn.Module, config: SwaConfig) -> None:
        super().__init__(model, 0.0)
        self.config, self.first = config, 1

    def begin(self, total_steps: int) -> None:
        """Hear how many steps the run has, before the first update."""
        self.first = max(1, math.ceil(self.config.start * total_steps))

    def share(self) -> float:
        """1 up to the first update that counts, 1 / n at the n-th, and 0 between them."""
        if self.updates <= self.first:
            return 1.0
        number, rest = divmod(self.updates - self.first, self.config.every)
        return 0.0 if rest else 1 / (number + 1)


def averaged_weights(model: nn.Module, config: RunConfig) -> AveragedWeights | None:
    """The average of the dense weights that a run keeps, if it keeps one."""
    if config.train.swa is not None:
        return EqualAverage(model, config.train.swa)
    return AveragedWeights(model, config.optimizer.ema_decay) if config.optimizer.ema_decay else None
