"""An exported directory as an MLflow model: `mlflow.pyfunc.load_model(DIR)`, without this package."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

_REQUIRED = ("torch", "safetensors", "numpy", "pandas", "mlflow")


def add_mlflow_files(folder: Path, code: Path, example: Mapping[str, list[Any]], scores: list[Any]) -> None:
    """Add MLmodel, requirements, signature and input example to a directory, which is then an MLflow model.

    Args:
        folder: all that the code reads.
        code: a module with MLflow's `_load_pyfunc`.
        example: column → a cell per request.
        scores: what it says of the candidates of one: numbers, or lists of them.
    """
    import mlflow.pyfunc
    import pandas as pd  # type: ignore[import-untyped]
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import Array

    def kind(cell: Any) -> Any:
        if isinstance(cell, list):
            return Array(kind(cell[0])) if cell else Array(DataType.double)
        return DataType.long if isinstance(cell, int) else DataType.double

    def fullest(cells: list[Any]) -> Any:
        return max(cells, key=lambda cell: len(str(cell)))

    columns: list[Any] = [ColSpec(kind(fullest(cells)), name) for name, cells in example.items()]
    outputs = Schema([ColSpec(kind(scores))])
    with tempfile.TemporaryDirectory(prefix="ctr-model-") as temporary:
        made = Path(temporary) / "model"
        mlflow.pyfunc.save_model(
            path=made,
            loader_module=code.stem,
            code_paths=[str(code)],
            signature=ModelSignature(inputs=Schema(columns), outputs=outputs),
            input_example=pd.DataFrame(example),
            pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in _REQUIRED],
        )
        shutil.copytree(made, folder, dirs_exist_ok=True)
