"""A directory that holds all of an exported model; whole or absent.

    schema.json           the inputs of both programs: name, dtype, shape, meaning; tables; run and step
    encode.pt2            graph of the half that reads requests, for torch.export.load on any machine
    score.pt2             … of the half that reads candidates
    encode.aoti.pt2       the same compiled for this machine's processor or GPU, for AOTInductor's loader
    score.aoti.pt2
    encode.onnx, …        the same as ONNX files, with --onnx
    tables.safetensors    embedding tables
    fitted/, spec.yaml    what raw values are encoded with: vocabularies, buckets, scalers
    example.safetensors   requests of a split, packed, with the scores that ctr predict gives them
    load.py               scores such a file; needs torch and safetensors alone
    MLmodel, …            for mlflow.pyfunc.load_model, with --mlflow

docs/export.md says how to use it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from ctr.embedding import EmbeddingTables
from ctr.export import load
from ctr.export.inputs import Input, inputs_of_candidates, inputs_of_requests
from ctr.export.outputs import ScoreOutputs, score_array
from ctr.export.programs import compile_program, least_slots, make_programs, why_not, write_onnx
from ctr.models.model import Model
from ctr.tokens.ngram import NgramField
from ctr.training.outputs import Outputs
from features.dataset import Dataset
from features.errors import ConfigError, CtrError
from features.names import under

FORMAT = 2
EXAMPLE = "example.safetensors"
TOLERANCE = 1e-5  # of a probability, and of values above 1 relative to them
_AT_A_TIME = 64


@dataclass(frozen=True)
class Exported:
    """A model and what it was made of.

    Args:
        model: in evaluation mode.
        tables: its embedding tables.
        dataset: as the run reads it.
        ngrams: of the run.
        outputs: what the run makes of logits.
        about: what the schema says of the run.
        device: where model and tables are.
    """

    model: Model
    tables: EmbeddingTables
    dataset: Dataset
    ngrams: list[NgramField]
    outputs: Outputs
    about: dict[str, Any]
    device: torch.device

    def __post_init__(self) -> None:
        if (reason := why_not(self.model)) is not None:
            raise ConfigError(f"this model cannot be exported: {reason}")

    @property
    def inputs(self) -> tuple[list[Input], list[Input]]:
        """Of requests and of candidates."""
        manifest = self.dataset.manifest
        return inputs_of_requests(manifest, self.ngrams), inputs_of_candidates(manifest)

    @torch.no_grad()
    def whole_tables(self) -> dict[str, Tensor]:
        """Every row of every table, float32."""
        rows = self.tables.rows
        return {
            name: self.tables.lookup({name: torch.arange(rows[name], device=self.device)})[name].clone()
            for name in sorted(rows)
        }


def fill(
    folder: Path,
    exported: Exported,
    example: dict[str, Tensor],
    *,
    compiled: bool,
    onnx: bool = False,
    say: Callable[[str], None],
) -> float:
    """Write everything into an empty folder, load it again and score the example.

    Args:
        folder: where.
        exported: the model.
        example: packed requests with their `score` and `logit`.
        compiled: whether AOTInductor's programs are made too.
        onnx: whether ONNX files are, as far as they can be.
        say: told what is being done; some of it takes a minute.

    Returns:
        The largest difference of a score of the example; of one that is calibrated, before that: a step of an
        isotonic regression makes much of a logit's last digit.
    """
    tables = exported.whole_tables()
    save_file(tables, folder / "tables.safetensors")
    save_file(example, folder / EXAMPLE)
    requests, candidates = exported.inputs
    say("making the graphs")
    scores_of = ScoreOutputs(exported.outputs)
    programs = make_programs(
        exported.model, exported.dataset.manifest, tables, requests, candidates, scores_of
    )
    for name, program in (("encode", programs.encode), ("score", programs.score)):
        torch.export.save(program, folder / f"{name}.pt2")
        if compiled:
            say(f"compiling {name}")
            compile_program(program, folder / f"{name}.aoti.pt2")
        if onnx and (reason := write_onnx(program, folder / f"{name}.onnx")) is not None:
            say(f"there is no {name}.onnx: {reason}")
    (folder / "schema.json").write_text(json.dumps(_schema(exported, tables), indent=1, ensure_ascii=False))
    _copy_fitted(exported.dataset.root, folder)
    shutil.copyfile(load.__file__, folder / "load.py")
    say("scoring the example")
    return _difference(exported.outputs, load.opened(folder), example)


def _difference(outputs: Outputs, model: tuple[Any, ...], example: dict[str, Tensor]) -> float:
    """How far logits are from those of the model, told in scores, and scores from what is made of logits."""
    scores, logits = (load.score(model, example, _AT_A_TIME, logits=raw).numpy() for raw in (False, True))
    pairs = (
        (score_array(outputs.raw, logits), score_array(outputs.raw, example["logit"].numpy())),
        (scores, score_array(outputs, logits)),
    )
    return max(float((np.abs(a - b) / np.maximum(np.abs(b), 1)).max(initial=0.0)) for a, b in pairs)


def check_difference(difference: float, *, bf16: bool) -> None:
    """Refuse programs that score otherwise than the model; bfloat16 runs are exported in float32.

    Raises:
        CtrError: they do.
    """
    if difference > TOLERANCE and not bf16:
        raise CtrError(
            f"exported scores must equal those of ctr predict within {TOLERANCE:g}, got a difference of "
            f"{difference:.1e}; nothing was written: please report the run's config.yaml"
        )


def _schema(exported: Exported, tables: dict[str, Tensor]) -> dict[str, Any]:
    manifest = exported.dataset.manifest
    known = {
        name: {"rows": len(table), "width": table.shape[1], "dtype": "float32"}
        | (
            manifest.tables[name].model_dump(include={"encode", "oov_rows"})
            if name in manifest.tables
            else {}
        )
        for name, table in tables.items()
    }
    requests, candidates = ([given.plain() for given in half] for half in exported.inputs)
    return {
        "format": FORMAT,
        **exported.about,
        "torch": torch.__version__,
        "device": exported.device.type,
        "letters": "R requests; C candidates, L events, K entries of a list of each, zeros behind them",
        "least": least_slots(exported.model),  # C, L and K are at least this
        "tables": known,
        "encode": requests,
        "score": candidates,
        "result": "scores, float64 (R, C), and logits (R, C); with tasks (R, C, outputs) and (R, C, tasks)",
        "outputs": exported.outputs.names if exported.outputs.tasks else ["score"],
    }


def _copy_fitted(dataset: Path, folder: Path) -> None:
    if (fitted := under(dataset, "fitted")).is_dir():
        shutil.copytree(fitted, folder / "fitted")
    if (spec := under(dataset, "spec.yaml")).is_file():
        shutil.copyfile(spec, folder / "spec.yaml")
