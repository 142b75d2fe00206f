"""What a worker is told to do, as one line of JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass

from ctr.ablate.subruns import SubRun
from ctr.config import RunConfig, parse_config


@dataclass(frozen=True)
class Task:
    """A training to do or to go on with.

    Args:
        config: the run.
        until: pause at this step and validate there; None trains to the end and scores the test part.
        permutations: columns permuted together in the test, a predictions table each.
    """

    config: RunConfig
    until: int | None
    permutations: list[tuple[str, ...]]

    def to_json(self) -> str:
        """One line."""
        config = self.config.model_dump(mode="json")
        return json.dumps({"config": config, "until": self.until, "permutations": self.permutations})

    @classmethod
    def from_json(cls, text: str) -> Task:
        """The inverse of `to_json`."""
        data = json.loads(text)
        permutations = [tuple(names) for names in data["permutations"]]
        return cls(parse_config(data["config"]), data["until"], permutations)

    @classmethod
    def of(cls, subrun: SubRun, until: int | None = None) -> Task:
        """What a sub-run needs, to its end or to a pause."""
        return cls(subrun.config, until, subrun.permutations)
