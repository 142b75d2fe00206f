"""`ctr models`: the models, ways to read a sequence, to cross tokens and to share tasks that a run can name.

What is printed stands at the head of each one's file, and is read from there.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from textwrap import fill

from ctr.models.heads.heads import HEADS
from ctr.models.interaction.interactions import INTERACTIONS
from ctr.models.registry import MODELS, model_class
from ctr.models.sequence.sides import SIDES
from ctr.options.knobs import KindSection
from pipelines.terminal import echo

_SHARED = re.compile(r"^Shared by the candidates of a request: (.+?)(?:\n\n|\Z)", re.MULTILINE | re.DOTALL)
_SOURCE = re.compile(r"^Source: (.+?)(?:\n\n|\Z)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Choice:
    """One that a configuration can name.

    Args:
        setting: how to choose it, as an override.
        what: the first sentence of its file.
        shared: what the candidates of a request share, if its file says so.
        source: the paper.
        place: its file, or its page.
    """

    setting: str
    what: str
    shared: str | None
    source: str
    place: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("word", nargs="?", default="", help="only those with this word anywhere, such as SIM")


def run(arguments: argparse.Namespace) -> int:
    """Print the choices, each with its setting, what is shared, its source and where it is documented."""
    word = arguments.word.casefold()
    found = [c for c in choices() if word in " ".join(filter(None, vars(c).values())).casefold()]
    for choice in found:
        echo(choice.setting)
        echo(_indented(choice.what))
        if choice.shared:
            echo(_indented(f"once per request: {choice.shared}"))
        echo(_indented(f"source: {choice.source}"))
        echo(_indented(f"see {choice.place}"))
        echo("")
    every = len(list(choices()))
    echo(f"{len(found)} of {every}; with model.kind=grid any model.sequence goes with any model.interaction")
    return 0


def choices() -> Iterator[Choice]:
    """All choices: models, the two axes of the grid, and how tasks share a model."""
    for kind in MODELS:
        page = f"docs/models/{kind.replace('_', '-')}.md"
        yield _choice(f"model.kind={kind}", sys.modules[model_class(kind).__module__].__doc__ or "", page)
    yield from _axis("model.sequence.kind", SIDES.kinds)
    yield from _axis("model.interaction.kind", INTERACTIONS.kinds)
    yield from _axis("tasks.kind", HEADS.kinds)


def _axis(setting: str, kinds: Mapping[str, type[KindSection]]) -> Iterator[Choice]:
    for kind, options in kinds.items():
        module = sys.modules[options.__module__]
        yield _choice(
            f"{setting}={kind}", inspect.getdoc(module) or "", f"{options.__module__.replace('.', '/')}.py"
        )


def _choice(setting: str, text: str, place: str) -> Choice:
    shared, source = _SHARED.search(text), _SOURCE.search(text)
    what = text.split("\n\n")[0]
    return Choice(
        setting, _one_line(what), _one_line(shared[1]) if shared else None,
        _one_line(source[1]).partition(" Differs: ")[0] if source else "", place,
    )  # fmt: skip


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _indented(text: str) -> str:
    return fill(text, 110, initial_indent="    ", subsequent_indent="      ")
