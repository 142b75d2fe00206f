from __future__ import annotations

from pathlib import Path

import pytest

from features.read.needed import needed_columns
from features.spec import load_spec

SPECS = sorted((Path(__file__).resolve().parents[2] / "pipelines" / "configs" / "specs").glob("*.yaml"))


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_a_shipped_spec_is_valid_and_says_its_command(path: Path) -> None:
    spec = load_spec(path)
    assert spec.name == path.stem
    assert needed_columns(spec)
    assert 2 <= len(spec.tokens) <= 8
    assert f"--spec pipelines/configs/specs/{path.name}" in path.read_text()


def test_there_is_a_spec_for_every_source() -> None:
    names = {"ml-100k", "ml-1m", "ml-latest-small", "simulator", "trivago", "competition"}
    assert names <= {path.stem for path in SPECS}
