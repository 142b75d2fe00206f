"""ctr models: every choice is listed, with what its file says of it."""

from __future__ import annotations

import pytest

from ctr.models.heads.heads import HEADS
from ctr.models.interaction.interactions import INTERACTIONS
from ctr.models.registry import MODELS
from ctr.models.sequence.sides import SIDES
from pipelines.cli import main
from pipelines.models import choices
from tests.documents import ROOT


def test_every_choice_says_what_it_is_where_it_comes_from_and_what_is_shared() -> None:
    found = list(choices())
    assert len(found) == len(MODELS) + len(SIDES.kinds) + len(INTERACTIONS.kinds) + len(HEADS.kinds)
    for choice in found:
        assert choice.what.endswith(".") and len(choice.what) < 200, choice
        assert (ROOT / choice.place).is_file(), choice
        assert choice.source, choice
        if choice.setting.startswith("model.sequence"):
            assert choice.shared, choice


def test_the_list_can_be_searched(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "sdim"]) == 0
    shown = capsys.readouterr().out
    assert (
        "model.sequence.kind=sdim\n" in shown and "2205.10249" in shown and "model.kind=hyformer" not in shown
    )
    assert main(["models"]) == 0
    assert capsys.readouterr().out.count("\n    see ") == len(list(choices()))
