"""Checkpoints whose files are as their manifest says, with a content that no run can go on from."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ctr.build import build_state, open_dataset
from ctr.checkpoint.checkpoint import MANIFEST, STATE, TENSORS
from ctr.checkpoint.load import load_best
from ctr.checkpoint.manifest import sealed
from ctr.errors import CheckpointError
from ctr.training.state import TrainingState
from pipelines.cli import main
from pipelines.train import train
from tests.ctr.tiny_run import tiny_config, tiny_dataset, write_config

OPTIONS = ("optimizer.ema_decay=0.9", "optimizer.dense_staleness=1", "train.max_steps=3")
Tensors = dict[str, Tensor]
State = dict[str, Any]


def named(tensors: Tensors, part: str, *, ndim: int = 1) -> str:
    """The first tensor of a part with so many dimensions."""
    return next(n for n in sorted(tensors) if n.startswith(f"{part}/") and tensors[n].ndim == ndim)


def without(part: str) -> Callable[[Tensors, State], None]:
    def change(tensors: Tensors, state: State) -> None:
        del tensors[named(tensors, part)]

    return change


def as_doubles(tensors: Tensors, state: State) -> None:
    name = named(tensors, "model")
    tensors[name] = tensors[name].double()


def as_halves(tensors: Tensors, state: State) -> None:
    name = named(tensors, "tables", ndim=2)
    tensors[name] = tensors[name].half()


def longer(part: str) -> Callable[[Tensors, State], None]:
    def change(tensors: Tensors, state: State) -> None:
        name = named(tensors, part)
        tensors[name] = torch.cat([tensors[name], tensors[name]])

    return change


def with_more(name: str) -> Callable[[Tensors, State], None]:
    def change(tensors: Tensors, state: State) -> None:
        tensors[name] = torch.zeros(2)

    return change


def not_a_number(part: str, ndim: int = 1) -> Callable[[Tensors, State], None]:
    def change(tensors: Tensors, state: State) -> None:
        tensors[named(tensors, part, ndim=ndim)].view(-1)[-1] = float("nan")

    return change


def infinite(tensors: Tensors, state: State) -> None:
    tensors[named(tensors, "average")][0] = float("inf")


def short_random_state(tensors: Tensors, state: State) -> None:
    tensors["rng/torch"] = tensors["rng/torch"][:9].clone()


def wild_random_state(tensors: Tensors, state: State) -> None:
    tensors["rng/torch"] = torch.full_like(tensors["rng/torch"], 255)


def no_random_state(tensors: Tensors, state: State) -> None:
    del tensors["rng/torch"]


def said(*path: str, value: Any) -> Callable[[Tensors, State], None]:
    """Put a value into the state, or take the key away with ...."""

    def change(tensors: Tensors, state: State) -> None:
        *inner, last = path
        for key in inner:
            state = state[key]
        if value is ...:
            del state[last]
        else:
            state[last] = value

    return change


# name → change, what the message must say, whether scoring refuses it too
DAMAGES: dict[str, tuple[Callable[[Tensors, State], None], str, bool]] = {
    "a weight is missing": (without("model"), "found nothing", True),
    "an average is missing": (without("average"), "found nothing", True),
    "a weight of 64 bits": (as_doubles, "found float64", True),
    "a table of 16 bits": (as_halves, "found float16", True),
    "a longer weight": (longer("model"), "differ", True),
    "an unknown weight": (with_more("model/extra"), "model/extra: expected nothing", True),
    "an unknown part": (with_more("junk/x"), "junk/x: expected nothing", True),
    "a name without part": (with_more("junk"), "junk: expected nothing", True),
    "NaN in a weight": (not_a_number("model"), "NaN or infinite", True),
    "NaN in a table": (not_a_number("tables", 2), "NaN or infinite", True),
    "infinity in the average": (infinite, "NaN or infinite", True),
    "NaN in a moment": (not_a_number("optimizer"), "NaN or infinite", False),
    "half of a moment": (without("optimizer"), "the optimizer must hold", False),
    "a longer moment": (longer("optimizer"), "differ", False),
    "a moment of no weight": (with_more("optimizer/999.exp_avg"), "expected nothing", False),
    "a waiting gradient of no weight": (with_more("pending/nobody"), "expected nothing", False),
    "a cut random state": (short_random_state, "RuntimeError", False),
    "a wild random state": (wild_random_state, "RuntimeError", False),
    "no random state": (no_random_state, "KeyError", False),
    "another step": (said("progress", "step", value=1), "progress.step is 1, the manifest says 2", False),
    "a step of text": (said("progress", "step", value="3"), "progress: step: ", False),
    "an epoch below 0": (said("progress", "epoch", value=-1), "at least 0", False),
    "a yes or no of text": (said("progress", "finished", value="no"), "finished", False),
    "no progress": (said("progress", value=...), "progress", True),
    "progress as a list": (said("progress", value=[1]), "progress", True),
    "a best step of text": (said("progress", "best_step", value="3"), "best_step", True),
    "no identity": (said("identity", value=...), "identity", True),
    "an identity of text": (said("identity", value="me"), "must hold", True),
    "a count of text": (said("averaged_updates", value="many"), "averaged_updates", True),
    "a rate of text": (said("pending_rate", value="fast"), "pending_rate", False),
    "not a number": (said("pending_rate", value=float("nan")), "NaN is no number", True),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is paused after two of its steps."""
    folder = tmp_path_factory.mktemp("run")
    train(tiny_config(tiny_dataset(folder), folder / "run", *OPTIONS), until=2)
    return folder / "run"


@pytest.fixture
def checkpoint(run: Path, tmp_path: Path) -> Path:
    """A copy of its checkpoint."""
    target = tmp_path / "run" / "checkpoints" / "step-2"
    return Path(shutil.copytree(run / "checkpoints" / "step-2", target))


def fresh_state(run: Path) -> TrainingState:
    """That of the run, before anything is restored."""
    config = tiny_config(run.parent / "dataset", run, *OPTIONS)
    return build_state(config, open_dataset(config, verify=False).manifest, torch.device("cpu"))


def damage(checkpoint: Path, change: Callable[[Tensors, State], None]) -> None:
    """Change the content, and write the manifest to it as this program would."""
    tensors, state = load_file(checkpoint / TENSORS), json.loads((checkpoint / STATE).read_text())
    change(tensors, state)
    save_file(tensors, checkpoint / TENSORS)
    (checkpoint / STATE).write_text(json.dumps(state))
    manifest = json.loads((checkpoint / MANIFEST).read_text())
    del manifest["seal"]
    for name in manifest["files"]:
        data = (checkpoint / name).read_bytes()
        manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    (checkpoint / MANIFEST).write_bytes(sealed(manifest))


def restored(run: Path, checkpoint: Path, *, weights_only: bool = False) -> TrainingState:
    """As `ctr train` and as `ctr predict` do it."""
    found, state = load_best(checkpoint.parent), fresh_state(run)
    assert found is not None
    state.restore(found, weights_only=weights_only)
    return state


@pytest.mark.parametrize("name", DAMAGES)
def test_a_sealed_checkpoint_of_wrong_content_is_refused(name: str, run: Path, checkpoint: Path) -> None:
    change, words, scoring_too = DAMAGES[name]
    damage(checkpoint, change)
    for weights_only in (False, True)[: 1 + scoring_too]:
        with pytest.raises(CheckpointError) as caught:
            restored(run, checkpoint, weights_only=weights_only)
        text = str(caught.value)
        assert words in text and str(checkpoint) in text and caught.value.exit_code == 5, text


def test_what_scoring_does_not_read_does_not_stop_it(run: Path, checkpoint: Path) -> None:
    damage(checkpoint, short_random_state)
    assert restored(run, checkpoint, weights_only=True).progress.step == 0


def test_written_again_without_a_change_it_is_taken(run: Path, checkpoint: Path) -> None:
    damage(checkpoint, lambda tensors, state: None)
    state = restored(run, checkpoint)
    assert state.progress.step == 2 and state.pending.nbytes > 0


def test_the_commands_end_with_a_sentence(
    run: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(checkpoint, not_a_number("model"))
    target = tmp_path / "run"
    for name in ("journal.jsonl", "config.yaml", ".ctr-made.json"):
        shutil.copy(run / name, target / name)
    config = write_config(tmp_path / "run.yaml", run.parent / "dataset", target, *OPTIONS)
    for command in (["train", str(config)], ["predict", str(target)]):
        capsys.readouterr()
        assert main(command) == 5
        text = capsys.readouterr().err
        assert text.startswith("error: ") and text.count("\n") == 1 and "NaN or infinite" in text
