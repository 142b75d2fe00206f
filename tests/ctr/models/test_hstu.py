"""HSTU beyond one row's formula: what the length of other histories changes, and times under autocast.

That its layers are the paper's is proved with all models in test_conformance.py.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctr.blocks.jagged import Jagged
from ctr.models.registry import model_config
from ctr.models.sequence.hstu import HstuLayer
from ctr.models.sequence.side import SideSizes
from features.errors import ConfigError
from tests.ctr import batches
from tests.ctr.models.grid_cases import GRID
from tests.ctr.models.test_conformance import make_model, to_single
from tests.ctr.models.unified_cases import UNIFIED
from tests.ctr.reference.models import logits

CASES = {"HSTU": GRID["HSTU"], "HSTU end to end": UNIFIED["HSTU end to end"], "MTGR": UNIFIED["MTGR"]}


@pytest.mark.parametrize("name", CASES)
def test_the_longest_history_of_the_data_set_changes_no_score(name: str) -> None:
    """A run on the same events cut from a log of longer histories has the same scores."""
    domains = batches.manifest().domains
    stored = {d: info.model_copy(update={"max_len": 1000}) for d, info in domains.items()}
    model, other = make_model(CASES[name]), make_model(CASES[name], batches.manifest(domains=stored))
    longer = other.state_dict()
    for key, value in model.state_dict().items():  # biases of farther places are more
        longer[key] = torch.cat([value, longer[key][len(value) :]]) if key.endswith("by_place") else value
    other.load_state_dict(longer)
    batch, rows = batches.make_batch(), batches.make_rows()
    torch.testing.assert_close(other(batch, rows), model(batch, rows))


@pytest.mark.parametrize("norm", ["layer", "rms"])
@pytest.mark.parametrize("longest", [200, 16_384])
def test_a_short_history_is_read_as_loudly_as_a_long_one(norm: Any, longest: int) -> None:
    """The ε of the norm hides nothing with fresh weights."""
    torch.manual_seed(0)
    lengths = torch.tensor([1, 20, 200])
    layer = HstuLayer(SideSizes(32, 4, 2.0, norm, 0.0, longest, ns_tokens=1))
    read: list[Tensor] = []
    layer.norm_read.register_forward_hook(lambda _module, _given, made: read.append(made))
    tokens = Jagged.from_lengths(F.layer_norm(torch.randn(int(lengths.sum()), 32), (32,)), lengths)
    layer.encode(tokens, torch.rand(len(tokens.values)) * 1e6)
    newest = read[0][lengths.cumsum(0) - 1].square().mean(dim=1).sqrt()
    torch.testing.assert_close(newest, torch.ones(3), atol=0.1, rtol=0)


def test_the_dynamic_mask_shows_features_to_each_other() -> None:
    """The features of the test data make one token of the request, which all see with any mask: here two."""
    groups = batches.GROUPS | {"user": ["user", "interests"], "age": ["age"]}
    manifest, few = batches.manifest(tokens=groups), [1, 1, 2, 1, 1, 1]
    model, rows = make_model(UNIFIED["MTGR dynamic mask"], manifest), batches.make_rows()
    batch = batches.make_batch(candidates=few)
    torch.testing.assert_close(model(batch, rows), logits(model, manifest, batch, rows))


def test_a_mask_by_times_that_are_hidden_is_refused() -> None:
    config = model_config(kind="hstu", action_tokens="added", mask="dynamic", time_gaps=False)
    with pytest.raises(ConfigError, match=r"model\.time_gaps: false hides"):
        config.check(batches.manifest())
    domains = batches.manifest().domains
    lists = domains | {"buy": domains["buy"].model_copy(update={"timed": False})}
    with pytest.raises(ConfigError, match=r"none for the events of \['buy'\]"):
        config.model_copy(update={"time_gaps": True}).check(batches.manifest(domains=lists))


@pytest.mark.parametrize("name", CASES)
def test_times_are_compared_in_float32_under_autocast(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounded to bfloat16, one of fourteen gaps falls into another bucket."""
    seen: list[Tensor] = []
    bias = HstuLayer.bias

    def kept(self: nn.Module, distance: Tensor, seconds: Tensor) -> Tensor:
        seen.append(seconds.double())
        return bias(self, distance, seconds)

    monkeypatch.setattr(HstuLayer, "bias", kept)
    model, batch = make_model(CASES[name]).float(), to_single(batches.make_batch())
    rows = {table: r.float() for table, r in batches.make_rows().items()}
    model(batch, rows)
    plain = seen.copy()
    seen.clear()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(batch, rows)
    torch.testing.assert_close(seen, plain, atol=0, rtol=0)
