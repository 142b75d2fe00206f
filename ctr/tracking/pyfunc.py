"""A run's weights as an MLflow model: code that MLflow executes, and the files of a checkpoint.

Nothing is pickled. MLflow stores the code as text ("models from code") beside config.yaml and
the checkpoint, whose tensors are safetensors and whose hashes are checked when it is opened. The code needs
this package; it names the function that opens the files, so that this folder knows nothing of models:

    model = mlflow.pyfunc.load_model("runs:/<run>/model")
    model.predict(pandas.DataFrame({"row_id": [84140, 84141]}))  # probabilities, those of `ctr predict`

It has a signature, an input example and its requirements. The data set is looked for where the run had it;
elsewhere with `model_config={"dataset": "/there"}`. A model that needs neither: `ctr.export`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from features.errors import ConfigError

# What is said of rows: float64 (N,), or the column of each output of a run with several tasks.
Said: TypeAlias = np.ndarray | dict[str, np.ndarray]
# From configuration, checkpoint and data set to a function of row IDs, int64 (N,).
Opener: TypeAlias = Callable[[Path, Path, Path], Callable[[np.ndarray], Said]]

_CODE = '''"""A run of ctr-pipeline, opened from its checkpoint; for mlflow.pyfunc.load_model."""

from {module} import {name}

from ctr.tracking.pyfunc import offer

offer({name})
'''
_OWN = ("pipelines", "ctr")
_REQUIRED = ("ctr-pipeline", "torch", "mlflow")


def offer(opener: Opener) -> None:
    """Give MLflow, which is executing a model's code, the model."""
    from mlflow.models import set_model
    from mlflow.pyfunc import PythonModel

    class Scorer(PythonModel):
        """Probabilities of impressions of the run's data set."""

        def load_context(self, context: Any) -> None:
            """Open the files; the data set must be the one that the run was trained on."""
            files = context.artifacts
            dataset = Path(context.model_config["dataset"])
            self.score = opener(Path(files["config"]), Path(files["checkpoint"]), dataset)

        # MLflow takes other hints than that of an array for a schema, and warns where there is none.
        def predict(self, context: Any, model_input: np.ndarray, params: Any = None) -> Any:
            """Of the rows that the column row_id of a table, an array or a list names, float64 (N,).

            A run with several tasks gives a table: score, and score_<name> of each further output.
            """
            named: Any = model_input["row_id"] if hasattr(model_input, "columns") else model_input
            said = self.score(np.asarray(named, dtype=np.int64).reshape(-1))
            if not isinstance(said, dict):
                return said
            from pandas import DataFrame  # type: ignore[import-untyped]

            return DataFrame(said)

    set_model(Scorer())


@contextmanager
def saved_model(config: Path, checkpoint: Path, *, dataset: str, opener: str) -> Iterator[Path]:
    """A directory that `mlflow.pyfunc.load_model` opens, for as long as the block lasts.

    Args:
        config: the run's config.yaml.
        checkpoint: directory of a step.
        dataset: where the data set lies now.
        opener: `module:function` of an `Opener`.

    Raises:
        ConfigError: the opener is not of this program.
    """
    import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    module, _, name = opener.partition(":")
    parts = module.split(".")
    # It is read from a journal, which may come from elsewhere, and MLflow imports it.
    if not all(part.isidentifier() for part in [*parts, name]) or parts[0] not in _OWN:
        raise ConfigError(f"opener must be module:function of {' or '.join(_OWN)}, got {opener!r:.80}")
    with tempfile.TemporaryDirectory(prefix="ctr-model-") as folder:
        code = Path(folder) / "model.py"
        code.write_text(_CODE.format(module=module, name=name))
        mlflow.pyfunc.save_model(
            path=Path(folder) / "model",
            python_model=code,
            artifacts={"config": str(config), "checkpoint": str(checkpoint)},
            model_config={"dataset": dataset},
            signature=ModelSignature(inputs=Schema([ColSpec("long", "row_id")])),
            input_example={"row_id": [0, 1]},
            pip_requirements=[f"{package}=={version(package)}" for package in _REQUIRED],
        )
        yield Path(folder) / "model"
