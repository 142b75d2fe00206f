"""From the halves of a model to programs: graphs of torch's own operators, with sizes that may change.

`torch.export` makes a graph that any machine with torch can run; AOTInductor compiles it for the
processor or the GPU of this one.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.utils._pytree import tree_map

from ctr.blocks.token_merge import TokenMerge
from ctr.export.halves import EncodeHalf, ScoreHalf
from ctr.export.inputs import Input
from ctr.export.outputs import ScoreOutputs
from ctr.library.encoder import LibraryEncoder
from ctr.models.grid import Grid
from ctr.models.hstu import HstuModel
from ctr.models.model import Model
from ctr.models.sequence.side import SequenceSide
from features.dataset import Manifest
from features.errors import ConfigError

Inputs = dict[str, Tensor]


@dataclass(frozen=True)
class Programs:
    """The graphs of both halves."""

    encode: ExportedProgram
    score: ExportedProgram


@torch.no_grad()
def make_programs(
    model: Model,
    manifest: Manifest,
    tables: dict[str, Tensor],
    requests: Sequence[Input],
    candidates: Sequence[Input],
    outputs: ScoreOutputs,
) -> Programs:
    """The graphs of a model's halves.

    Args:
        model: in evaluation mode.
        manifest: as the model sees the data set.
        tables: its embedding tables.
        requests: the inputs of the first half.
        candidates: those of the second.
        outputs: what makes scores of logits.
    """
    like, least = next(iter(tables.values())), least_slots(model)
    (asked, other_asked), (shown, other_shown) = (
        _two_samples(inputs, like, least) for inputs in (requests, candidates)
    )
    half = EncodeHalf(model, manifest, requests)
    state, other = half(tables, asked), half(tables, other_asked)
    encode = _export(half, (tables, asked), (tables, other_asked))
    assert half.rebuild is not None
    score = ScoreHalf(model, half.rebuild, candidates, outputs.to(like.device))
    return Programs(encode, _export(score, (tables, state, shown), (tables, other, other_shown)))


def why_not(model: Model) -> str | None:
    """Why a model cannot be exported; None if it can."""
    if isinstance(model, HstuModel):
        return "model.kind is hstu: its state holds packed events, whose number no input's size tells"
    if isinstance(model, Grid) and not all(
        side.exports for side in model.sides if isinstance(side, SequenceSide)
    ):
        return (
            f"model.sequence.kind is {model.config.sequence.kind}: it goes through events in turn or chooses "
            "them by value, so that sizes inside it do not follow from those of its inputs"
        )
    if any(isinstance(module, LibraryEncoder) for module in model.modules()):
        return "encoder.kind is library: its operators belong to transformers, which an exported model lacks"
    return None


def least_slots(model: nn.Module) -> int:
    """How many slots candidates, events and lists must be padded to, so that no size is 1 inside a graph."""
    return 2 * max([1, *(module.group for module in model.modules() if isinstance(module, TokenMerge))])


def _two_samples(inputs: Sequence[Input], like: Tensor, least: int) -> tuple[Inputs, Inputs]:
    """Two sets of inputs of zeros that differ in every size that may change."""
    letters = {size for given in inputs for size in given.shape if isinstance(size, str)}
    # No size is 0 or 1, which a graph would take for a constant, and R comes first: both halves share it.
    sizes = {
        letter: least + 1 + 2 * place
        for place, letter in enumerate(sorted(letters, key=lambda s: (s != "R", s)))
    }
    # Larger by whole groups of merged events: one more event need not make one more group.
    return _zeros(inputs, sizes, like), _zeros(inputs, {n: size + least for n, size in sizes.items()}, like)


def _zeros(inputs: Sequence[Input], sizes: dict[str, int], like: Tensor) -> Inputs:
    return {
        given.name: like.new_zeros(
            [size if isinstance(size, int) else sizes[size] for size in given.shape],
            dtype=torch.int64 if given.dtype == "int64" else like.dtype,
        )
        for given in inputs
    }


def compile_program(program: ExportedProgram, path: Path) -> None:
    """Compile a graph for the device that it was made on; `path` ends in .pt2.

    Raises:
        ConfigError: there is no C++ compiler.
    """
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        raise ConfigError("compiling needs g++ (or CXX), which is not there; install it, or add --no-compile")
    with warnings.catch_warnings():
        for kind in (FutureWarning, DeprecationWarning):  # torch's own, of how it pickles and what it imports
            warnings.simplefilter("ignore", kind)
        torch._inductor.aoti_compile_and_package(program, package_path=str(path))


def write_onnx(program: ExportedProgram, path: Path) -> str | None:
    """Write a graph as an ONNX file, its inputs in the order of the schema, tables first.

    Returns:
        Why it could not be translated, where it could not; there is no file then.

    Raises:
        ConfigError: onnx or onnxscript is not installed.
    """
    if find_spec("onnx") is None or find_spec("onnxscript") is None:
        raise ConfigError(
            "--onnx needs onnx and onnxscript, which are not installed; "
            "pip install --no-deps -r requirements/onnx.txt"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the translator, about itself
        try:
            torch.onnx.export(
                program,
                (),
                str(path),
                dynamo=True,
                verbose=False,
                external_data=False,
                custom_translation_table={torch.ops.aten.sort.stable: _stable_sort},
            )
        except torch.onnx.errors.OnnxExporterError as error:
            path.unlink(missing_ok=True)
            return _reason(error)
    return None


# Without types of tensors, which the translator would read as those of ONNX.
def _stable_sort(self, stable: bool = True, dim: int = -1, descending: bool = False):  # type: ignore[no-untyped-def]
    """ONNX's TopK, which the translator makes of a sort, keeps the order of equal values: it is stable."""
    from onnxscript.function_libs.torch_lib.ops.core import aten_sort

    return aten_sort(self, dim, descending)


def _reason(error: BaseException) -> str:
    """The innermost cause, in a line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().split("\n", 1)[0][:300]


def _export(half: nn.Module, given: tuple[Any, ...], other: tuple[Any, ...]) -> ExportedProgram:
    return torch.export.export(half, given, dynamic_shapes=tree_map(_changing, given, other), strict=False)


def _changing(one: Tensor, other: Tensor) -> dict[int, Any]:
    """The axes whose sizes differ."""
    pairs = enumerate(zip(one.shape, other.shape, strict=True))
    return {axis: Dim.DYNAMIC for axis, (a, b) in pairs if a != b}
