"""An exported model for `mlflow.pyfunc.load_model`; beside load.py it needs MLflow's own packages alone.

predict takes a table with a row per request. A cell holds what schema.json names: a value of the request, a
list of its candidates' or events' values, or a list of lists; it gives a list of scores per request.
"""

import importlib.util
import json
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import torch


class ExportedModel:
    """The model of a directory."""

    def __init__(self, folder: Path) -> None:
        spec = importlib.util.spec_from_file_location("exported_load", folder / "load.py")
        assert spec is not None and spec.loader is not None
        self.load = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.load)
        self.model = self.load.opened(folder)

    def predict(self, model_input: Any, params: Any = None) -> list[list[Any]]:
        """Of each request, its candidates' scores; of several outputs a list for each candidate."""
        file = packed(model_input, self.model[0])
        scores = self.load.score(self.model, file, 64)
        return [part.tolist() for part in scores.split(file["candidate.ends"].diff().tolist())]


def packed(table: Any, schema: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The rows of a table as load.py reads them."""
    file = {}
    for column in (*schema["encode"], *schema["score"]):
        name, per, values = column["name"], column["per"], list(table[column["name"]])
        if per != "request":
            file[f"{per}.ends"], values = ends(values), list(chain.from_iterable(values))
        if column["list"]:
            file[f"{name}.ends"], values = ends(values), list(chain.from_iterable(values))
        made = torch.tensor([_plain(value) for value in values], dtype=getattr(torch, column["dtype"]))
        file[name] = made if column["width"] is None else made.reshape(-1, column["width"])
    return file


def ends(values: list[Any]) -> torch.Tensor:
    """Where each list ends when they stand behind each other, from 0."""
    return torch.tensor([0, *map(len, values)]).cumsum(0)


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def rows(schema: dict[str, Any], file: dict[str, torch.Tensor], requests: int) -> dict[str, list[Any]]:
    """The first requests of a file as such a table: column → a cell per request."""
    made = {}
    for column in (*schema["encode"], *schema["score"]):
        name, per = column["name"], column["per"]
        cells = file[name].tolist()
        for key in ([f"{name}.ends"] if column["list"] else []) + (
            [f"{per}.ends"] if per != "request" else []
        ):
            at = file[key].tolist()
            cells = [cells[start:end] for start, end in pairwise(at)]
        made[name] = cells[:requests]
    return made


def _load_pyfunc(path: str) -> ExportedModel:
    return ExportedModel(Path(path))


def read_schema(folder: Path) -> dict[str, Any]:
    """What the programs of a directory read."""
    found: dict[str, Any] = json.loads((folder / "schema.json").read_text())
    return found
