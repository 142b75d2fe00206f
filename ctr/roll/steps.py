"""Steps of a long job, each done once: its result is kept with what it was made of, for the next start.

A step that was killed leaves no result and is done again; what it makes appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from features.durable import canonical_json, replace_file

PlainResult = dict[str, Any]


class StepLog:
    """The results of steps in a folder.

    Args:
        folder: one JSON file for each step.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def do(self, name: str, inputs: Any, action: Callable[[], PlainResult]) -> PlainResult:
        """The result of a step, which is done unless it was done with the same inputs.

        Args:
            name: such as `day-02.train`.
            inputs: all that the result depends on, as plain data.
            action: does it; its result is plain data.
        """
        if (found := self.find(name, inputs)) is not None:
            return found
        result: PlainResult = json.loads(canonical_json(action()))
        self._folder.mkdir(parents=True, exist_ok=True)
        text = canonical_json({"inputs": _digest(inputs), "result": result})
        replace_file(self._path(name), text, point=f"roll.{name.rpartition('.')[2]}")
        return result

    def find(self, name: str, inputs: Any) -> PlainResult | None:
        """The result of a step that was done with these inputs."""
        try:
            found = json.loads(self._path(name).read_bytes())
            return dict(found["result"]) if found["inputs"] == _digest(inputs) else None
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"


def _digest(inputs: Any) -> str:
    return hashlib.sha256(canonical_json(inputs)).hexdigest()
