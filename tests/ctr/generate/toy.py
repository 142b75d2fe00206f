"""A toy catalogue, whose sequences can all be enumerated, and tiny models over it with random weights."""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
from torch import Tensor

from ctr.batch import Batch, IdColumn, SequenceBatch, Target
from ctr.generate.config import GenerateConfig
from ctr.generate.model import NextBehaviour
from ctr.generate.semantic_ids import FIRST, SemanticIds
from features.dataset import Column, DomainInfo, Manifest, SplitInfo, TableInfo

SIZES = [3, 3, 2]  # V = 10, 18 sequences, 11 of them items
ROWS = 13  # rows 0 and 1 of the item table are none
_NOTHING = SplitInfo(requests=0, impressions=0, positives=0, time_range=None, clock_range=None)
MANIFEST = Manifest(
    name="toy",
    spec_sha256="0",
    users=2,
    items=11,
    features=[Column(name="item", level="candidate", kind="id", table="item")],
    tables={"item": TableInfo(rows=ROWS, encode="vocabulary")},
    domains={
        "view": DomainInfo(
            events=9,
            max_len=4,
            side=[
                Column(name="item", level="event", kind="id", table="item"),
                Column(name="accident", level="event", kind="dense", fields=["accident"]),
            ],
            time_range=None,
        )
    },
    tokens={},
    slices=[],
    splits=dict.fromkeys(("train", "valid", "test"), _NOTHING),
    files={},
)
SEQUENCES = torch.tensor(
    [[FIRST + a, FIRST + 3 + b, FIRST + 6 + c] for a, b, c in product(*map(range, SIZES))]
)


def toy_ids() -> SemanticIds:
    """11 of the 18 sequences are items, in no order."""
    generator = torch.Generator().manual_seed(3)
    tokens = torch.zeros(ROWS, 3, dtype=torch.int64)
    tokens[2:] = SEQUENCES[torch.randperm(len(SEQUENCES), generator=generator)[:11]]
    return SemanticIds(tokens, torch.randn(ROWS, 4, generator=generator), SIZES, {})


def toy_config(**generator: Any) -> GenerateConfig:
    """The configuration of a tiny generator."""
    sizes = {"d_model": 8, "layers": 1, "heads": 2, "dropout": 0.0, "targets": "shown"}
    return GenerateConfig.model_validate(
        {
            "dataset": "none",
            "run": "none",
            "ids": {"run": "none", "codes": SIZES[:2]},
            "generator": {"domain": "view", **sizes, **generator},
            "train": {"metric": "ne"},
        }
    )


def toy_model(seed: int = 0, **generator: Any) -> NextBehaviour:
    """A generator whose probabilities are far from uniform."""
    torch.manual_seed(seed)
    model = NextBehaviour(MANIFEST, toy_config(**generator), toy_ids()).eval()
    with torch.no_grad():
        for weight in model.lm.parameters():
            weight.add_(torch.randn_like(weight) * 0.5)
    return model


def toy_batch(histories: list[list[int]], targets: list[list[int]] | None = None, **dense: Tensor) -> Batch:
    """A batch of these histories (rows of the item table) and candidates; all labels are 1."""
    shown = targets or [[2]] * len(histories)
    events = torch.tensor([item for own in histories for item in own], dtype=torch.int64)
    candidates = torch.tensor([item for own in shown for item in own])
    unique, inverse = torch.unique(torch.cat([candidates, events]), return_inverse=True)
    lengths = torch.tensor([len(own) for own in histories])
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    ids = {"item": IdColumn(inverse[len(candidates) :])}
    gap = torch.ones(len(events))
    requests = torch.arange(len(histories))
    owner = torch.repeat_interleave(requests, torch.tensor([len(own) for own in shown]))
    return Batch(
        unique_ids={"item": unique},
        request_ids={},
        request_dense={},
        candidate_ids={"item": IdColumn(inverse[: len(candidates)])},
        candidate_dense={},
        sequences={"view": SequenceBatch(offsets, int(lengths.max()), gap, gap.long(), ids, dense)},
        request_index=owner,
        targets={"label": Target.of(torch.ones(len(candidates)))},
        row_id=torch.arange(len(candidates)),
        request_id=requests,
        user_id=requests,
        time=requests,
    )


def log_p(model: NextBehaviour, history: list[int], sequences: Tensor = SEQUENCES) -> Tensor:
    """(sequences, tokens, V): log-probabilities at every place, by a forward without padding or cache."""
    codes = [token for item in history for token in toy_ids().tokens[item].tolist()]
    prompt = torch.tensor([1, *codes]).expand(len(sequences), -1)
    with torch.no_grad():
        if model.both_sides:
            given = torch.cat([prompt[:, :1], sequences[:, :-1]], dim=1)
            read = model.lm(input_ids=prompt, decoder_input_ids=given).logits
        else:
            whole = torch.cat([prompt, sequences], dim=1)
            read = model.lm(input_ids=whole).logits[:, prompt.shape[1] - 1 : -1]
    return read.log_softmax(-1)


def joint(model: NextBehaviour, history: list[int], sequences: Tensor = SEQUENCES) -> Tensor:
    """(sequences,): log p of each sequence."""
    return log_p(model, history, sequences).gather(2, sequences[..., None])[..., 0].sum(1)
