"""The section `tasks` of a run: which labels it learns, how they share the model, what each counts.

B candidates, K tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, NamedTuple

from pydantic import Field
from torch import Tensor, nn

from ctr.batch import Batch, Target
from ctr.models.heads.towers import HeadSizes
from ctr.options.knobs import KindSection
from features.dataset import TaskInfo
from features.errors import ConfigError

TaskWeight = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Learned(NamedTuple):
    """What the loss of a task compares.

    Args:
        logits: (B,).
        target: what they are held against.
        offset: float32 (B,), see `Batch.offset`; None where there is none, or the logits have it.
    """

    logits: Tensor
    target: Target
    offset: Tensor | None = None


class TasksConfig(KindSection):
    """What all kinds of heads have."""

    use: list[str] = []  # tasks in this order, the first one chooses the step; empty: all of the data set
    # What a task counts in the loss, 1 where it is not named; learned: by their uncertainty.
    weights: Literal["learned"] | dict[str, TaskWeight] = {}

    def build(self, sizes: HeadSizes) -> nn.Module:
        """A new module from what is read of candidates, (B, F), to logits (B, K)."""
        raise NotImplementedError

    def chosen(self, tasks: Sequence[TaskInfo]) -> list[TaskInfo]:
        """The tasks of a data set that the run learns, in its order.

        Raises:
            ConfigError: an option names a task twice, or one that the data set or the run lacks.
        """
        known = {task.name: task for task in tasks}
        _check_names("tasks.use", self.use, known, "the labels of the data set")
        found = [known[name] for name in self.use] if self.use else list(tasks)
        named = [] if self.weights == "learned" else list(self.weights)
        _check_names("tasks.weights", named, {t.name: t for t in found}, "the tasks that the run learns")
        self.check(found)
        return found

    def check(self, tasks: Sequence[TaskInfo]) -> None:
        """Refuse tasks that this kind of head cannot learn together.

        Raises:
            ConfigError: with what must hold.
        """

    def learned(self, logits: Tensor, batch: Batch, tasks: Sequence[TaskInfo]) -> list[Learned]:
        """What the loss of each task compares, in the order of the tasks.

        Args:
            logits: (B, K).
            batch: with the targets of these tasks.
            tasks: those of the run.
        """
        first, *others = (Learned(logits[:, k], batch.targets[task.name]) for k, task in enumerate(tasks))
        return [first._replace(offset=batch.offset), *others]


def _check_names(option: str, names: Sequence[str], known: Mapping[str, TaskInfo], what: str) -> None:
    if len(set(names)) < len(names) or not set(names) <= set(known):
        raise ConfigError(f"{option} must name {what} ({', '.join(known)}), each once, got {list(names)}")
