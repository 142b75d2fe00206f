from __future__ import annotations

from pathlib import Path

import torch

from ctr.checkpoint.checkpoint import load_checkpoint, save_checkpoint
from ctr.checkpoint.restore import describe_mismatch, restore_rng, rng_state


def test_random_numbers_go_on_where_they_were(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, tensors=rng_state(), state={})
    expected = torch.rand(3)
    torch.rand(10)
    restore_rng(load_checkpoint(tmp_path / "step-1").tensors)
    assert torch.equal(torch.rand(3), expected)


def test_mismatch_is_a_field_diff() -> None:
    assert describe_mismatch({"a": {"b": (1, 2)}}, {"a": {"b": [1, 2]}}) == ""
    text = describe_mismatch({f"f{i:02}": i for i in range(30)}, {}, limit=3)
    assert text.splitlines() == [
        "f00: expected 0, found nothing",
        "f01: expected 1, found nothing",
        "f02: expected 2, found nothing",
        "… and 27 more",
    ]
