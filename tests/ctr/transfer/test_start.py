"""A run that starts from another has its rows at their values; what differs is named, or refused."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ctr.build import build_state, open_dataset, scoring_loader
from ctr.checkpoint.checkpoint import STATE, Checkpoint, load_latest
from ctr.checkpoint.manifest import CheckpointManifest, describe_file
from ctr.config import RunConfig
from ctr.errors import CheckpointError
from ctr.training.scoring import score_split
from ctr.training.state import TrainingState
from ctr.transfer.report import TakenOver
from ctr.transfer.start import start_from_run
from features.dataset import Dataset
from features.durable.faults import InjectedFault, injected
from features.encode.encoding import encoding_of
from features.encode.fitted import Fitted
from features.encode.tables import Vocabulary
from features.errors import ConfigError
from pipelines.train import dry_run, train
from tests.ctr.tiny_run import outcome_of
from tests.ctr.transfer.data_sets import CUT, WHOLE, config_of, renumbered, shop

CPU = torch.device("cpu")


class World:
    """A finished run and data sets around its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.own = shop(root, "own", **CUT)
        self.grown = shop(root, "grown", **WHOLE)
        self.shuffled = renumbered(self.own, root / "shuffled")
        self.run = root / "base"
        self.config = config_of(self.own, self.run, "optimizer.ema_decay=0.5")
        train(self.config)

    def fresh(self, dataset: Path, *overrides: str) -> tuple[TrainingState, RunConfig]:
        """A run on a data set, before its first step."""
        options = ("optimizer.ema_decay=0.5", f"init.run={self.run}", "seed=5", *overrides)
        config = config_of(dataset, self.root / "next", *options)
        data = open_dataset(config)
        state = build_state(config, data.manifest, CPU)
        state.encoding = encoding_of(data)
        return state, config

    def start(self, dataset: Path, *overrides: str) -> tuple[TrainingState, TakenOver]:
        """The same, having taken over what the base learned."""
        state, config = self.fresh(dataset, *overrides)
        taken = start_from_run(state, config, open_dataset(config))
        assert taken is not None
        return state, taken

    def logits(self, state: TrainingState, dataset: Path) -> np.ndarray:
        config = config_of(dataset, self.root / "none")
        found = score_split(
            state, scoring_loader(config, open_dataset(config), "train"), bf16=False, device=CPU
        )
        assert found is not None
        return found.logit

    @property
    def checkpoint(self) -> Checkpoint:
        found = load_latest(self.run / "checkpoints")
        assert found is not None
        return found

    def logits_of_base(self) -> np.ndarray:
        state = build_state(self.config, open_dataset(self.config).manifest, CPU)
        state.restore(self.checkpoint, weights_only=True)
        return self.logits(state, self.own)

    def values(self, dataset: Path, table: str) -> list[object]:
        """The value of each row, None for missing and unknown ones."""
        data = open_dataset(config_of(dataset, self.root / "none"))
        found = Fitted(data).table(table)
        assert isinstance(found, Vocabulary)
        return [None] * (1 + found.oov_rows) + found.values.to_list()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("transfer"))


@pytest.mark.parametrize("optimizer", ["keep", "drop"])
def test_a_start_on_the_same_data_is_that_run_to_the_bit(world: World, optimizer: str) -> None:
    state, taken = world.start(world.own, f"init.optimizer={optimizer}")
    assert np.array_equal(world.logits(state, world.own), world.logits_of_base())
    assert taken.same_data and all(rows.new == rows.dropped == 0 for rows in taken.tables.values())
    kept = {name for name in world.checkpoint.tensors if name.split("/")[0] not in ("rng", "pending")}
    own = state.tensors()
    different = {
        name for name in kept if name not in own or not same(own[name], world.checkpoint.tensors[name])
    }
    assert (
        different == set()
        if optimizer == "keep"
        else any(name.startswith("optimizer/") for name in different)
    )
    sums = [float(own[name].sum()) for name in own if name.startswith("tables/") and name.endswith(".sum")]
    assert all(sums) if optimizer == "keep" else not any(sums)


def same(one: object, other: Tensor) -> bool:
    assert isinstance(one, Tensor)
    return torch.equal(one, other)


@pytest.mark.fault(46)
def test_values_in_other_rows_keep_their_logits_to_the_bit(world: World) -> None:
    state, taken = world.start(world.shuffled)
    before = world.checkpoint.tensors["tables/item.weight"]
    after = state.tensors()["tables/item.weight"]
    assert before.shape == after.shape and not same(after, before)  # rows of equal shapes, elsewhere
    assert np.array_equal(world.logits(state, world.shuffled), world.logits_of_base())
    assert not taken.same_data and all(rows.new == rows.dropped == 0 for rows in taken.tables.values())


@pytest.mark.fault(36, 46)
@pytest.mark.parametrize("optimizer", ["keep", "drop"])
def test_grown_tables_keep_old_rows_and_draw_new_ones_as_fresh_tables_do(
    world: World, optimizer: str
) -> None:
    (state, taken), (fresh, _) = (
        world.start(world.grown, f"init.optimizer={optimizer}"),
        world.fresh(world.grown),
    )
    before, own, drawn = world.checkpoint.tensors, state.tensors(), fresh.tensors()
    for table in ("item", "tag", "device"):
        old, new = world.values(world.own, table), world.values(world.grown, table)
        known = len(old)
        assert new[:known] == old  # the vocabulary has only grown
        weight, sums = f"tables/{table}.weight", f"tables/{table}.sum"
        assert same(own[weight][:known], before[weight]) and same(own[weight][known:], drawn[weight][known:])
        assert same(own[sums][:known], before[sums] * (optimizer == "keep")) and not own[sums][known:].any()
        assert (taken.tables[table].kept, taken.tables[table].new) == (known, len(new) - known)
    assert taken.tables["item"].new > 0 and taken.tables["tag"].new == 2


def test_a_smaller_vocabulary_drops_rows_by_value(world: World, tmp_path: Path) -> None:
    larger = config_of(world.grown, tmp_path / "larger")
    train(larger)
    config = config_of(world.shuffled, tmp_path / "next", f"init.run={larger.run}")
    data = open_dataset(config)
    state = build_state(config, data.manifest, CPU)
    state.encoding = encoding_of(data)
    taken = start_from_run(state, config, data)
    assert taken is not None
    checkpoint = load_latest(Path(larger.run) / "checkpoints")
    assert checkpoint is not None
    old, new = world.values(world.grown, "item"), world.values(world.shuffled, "item")
    weight = checkpoint.tensors["tables/item.weight"]
    for row in range(4, len(new)):
        assert same(state.tensors()["tables/item.weight"][row], weight[old.index(new[row])])
    assert taken.tables["item"].dropped == len(old) - len(new)


@pytest.mark.fault(7)
def test_what_differs_is_refused_by_name(world: World, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model\.layers: expected 2, found 1"):
        world.start(world.own, "model.layers=2")
    _, taken = world.start(world.own, "model.layers=2", "init.allow=['model.layers', 'weights.*.1.*']")
    assert taken.new_weights and set(taken.allowed or {}) > {"model.layers"}
    with pytest.raises(CheckpointError, match=r"tasks\.kind: expected 'shared_bottom', found nothing"):
        world.start(world.own, "tasks.kind=shared_bottom")  # of equal weights, but perhaps of another label
    with pytest.raises(CheckpointError, match=r"tables\.item: expected 8 columns, found 4"):
        world.start(world.own, "embedding.dim=8")
    with pytest.raises(
        CheckpointError, match=r"(?s)tokens\.all: .*tables\.device: expected nothing, found a table"
    ):
        world.start(world.own, "drop=[device]")
    tokens = {"all": ["device", "item", "tags", "price"]}  # equal shapes, other columns beside the weights
    swapped = shop(tmp_path, "swapped", **CUT, tokens=tokens)
    with pytest.raises(
        CheckpointError, match=r"tokens\.all: expected \['device: id of device', 'item: id of item'"
    ):
        world.start(swapped)
    hashed = shop(tmp_path, "hashed", **{**CUT, "tables__item": {"encode": "hash", "rows": 15}})
    with pytest.raises(CheckpointError, match=r"tables\.item: expected encode hash, found vocabulary"):
        world.start(hashed)
    _, taken = world.start(hashed, "init.allow=['tables.item']")
    assert (taken.tables["item"].kept, taken.tables["item"].new) == (0, 16)
    with pytest.raises(ConfigError, match=r"init\.optimizer: keep needs one embedding\.optimizer"):
        world.start(world.own, "embedding.optimizer=adam")
    with pytest.raises(ConfigError, match=r"init\.run must be another run than this one"):
        world.start(world.own, f"run={world.run}")
    with pytest.raises(CheckpointError, match=r"init\.run must be a run with a checkpoint, \S*none has none"):
        world.start(world.own, f"init.run={tmp_path / 'none'}")


def test_features_that_were_fitted_or_defined_otherwise_are_named(world: World, tmp_path: Path) -> None:
    changes = {"features__tags__max_values": 2, "domains__cart__where__kind": ["cart", "other"]}
    other = shop(tmp_path, "other", **CUT, split={"valid": 0.3, "test": 0.3}, **changes)
    _, taken = world.start(other)
    assert set(taken.scales) == {"price", "view/dwell", "cart/dwell"} and taken.definitions == [
        "domain cart",
        "tags",
    ]
    text = "\n".join(taken.lines())
    assert (
        "another number: cart/dwell, price, view/dwell" in text
        and "otherwise by the spec: domain cart, tags" in text
    )
    assert TakenOver.from_json(json.loads(json.dumps(taken.to_json()))) == taken


def test_a_counter_read_by_a_pattern_or_by_another_one_is_compared(tmp_path: Path) -> None:
    counters = {
        "shown": {"by": ["item"], "outputs": ["count", "rate", "since_last"]},
        "better": {"by": ["user"], "against": "count.shown.rate", "outputs": ["residual"]},
        "paged": {"by": ["item"]},
        "unread": {"by": ["user"]},
    }
    tokens = {"all": ["item", "device", "tags", "price", "counts"]}
    spec: dict[str, Any] = {"features__counts": {"columns": ["count.b*", "page.*"]}, "tokens": tokens}
    spec["pages"] = {"place": {"column": "count.paged.rate"}}

    def definitions(name: str, **changes: dict[str, object]) -> dict[str, str]:
        changed = {key: entry | changes.get(key, {}) for key, entry in counters.items()}
        encoding = encoding_of(Dataset(shop(tmp_path, name, counters=changed, **spec)))
        assert encoding is not None
        return encoding.definitions

    own = definitions("own")
    assert "counter unread" not in own
    for key in ("better", "shown", "paged"):
        other = definitions(key, **{key: {"prior": 7.0}})
        assert f"counter {key}" in {name for name in own if own[name] != other[name]}


def without_encoding(run: Path) -> None:
    """Write the checkpoint as a version without encodings did."""
    (folder,) = (run / "checkpoints").iterdir()
    state = json.loads((folder / STATE).read_text())
    del state["encoding"], state["parameters"]
    (folder / STATE).write_text(json.dumps(state, sort_keys=True, separators=(",", ":")))
    manifest = json.loads((folder / "manifest.json").read_text())
    files = {**manifest["files"], STATE: describe_file(folder / STATE)}
    CheckpointManifest(manifest["step"], files).write(folder)


def test_an_older_checkpoint_is_read_with_its_data_set_or_refused(world: World, tmp_path: Path) -> None:
    shutil.copytree(world.run, tmp_path / "old")
    without_encoding(tmp_path / "old")
    options = (f"init.run={tmp_path / 'old'}",)
    state, _ = world.start(world.shuffled, *options)
    expected, _ = world.start(world.shuffled)
    assert all(same(t, expected.tensors()[n]) for n, t in state.tensors().items() if isinstance(t, Tensor))
    moved = world.own.rename(tmp_path / "moved")
    try:
        with pytest.raises(CheckpointError, match=r"(?s)vocabularies .* must be known.*init\.dataset"):
            world.start(world.shuffled, *options)
        state, _ = world.start(world.shuffled, *options, f"init.dataset={moved}")
        with pytest.raises(CheckpointError, match=r"but \S*grown holds"):
            world.start(world.shuffled, *options, f"init.dataset={world.grown}")
        world.start(world.grown)  # the checkpoint tells that its vocabularies have only grown
    finally:
        moved.rename(world.own)
    with pytest.raises(CheckpointError, match=r"earlier version saved it; set init\.optimizer to drop"):
        world.start(world.own, *options, "model.layers=2", "init.allow=['model.layers', 'weights.*.1.*']")


def test_n_grams_hash_rows_and_go_on_only_where_these_are_the_same(world: World, tmp_path: Path) -> None:
    ngram = "model.ngram={fields: [view.item], rows: 40}"
    base = config_of(world.own, tmp_path / "base", ngram)
    train(base)
    options = (ngram, f"init.run={base.run}")
    _, taken = world.start(world.own, *options)
    names = [name for name in taken.tables if name.startswith("ngram:")]
    assert names and all(taken.tables[name].new == 0 for name in names)
    with pytest.raises(
        CheckpointError, match=r"tables\.ngram:view\.item:2\.0: its rows are hashes of the rows"
    ):
        world.start(world.shuffled, *options)
    _, taken = world.start(world.shuffled, *options, "init.allow=['tables.ngram:*']")
    assert all(taken.tables[name].kept == 0 for name in names)


def test_a_killed_run_that_began_from_another_ends_with_the_same_bits(world: World, tmp_path: Path) -> None:
    base = shutil.copytree(world.run, tmp_path / "base")
    options = (f"init.run={base}", "train.checkpoint_every=2", "optimizer.ema_decay=0.5", "train.epochs=2")
    plain, killed = (config_of(world.grown, tmp_path / name, *options) for name in ("plain", "killed"))
    train(plain)
    rows = [json.loads(line) for line in (tmp_path / "plain" / "journal.jsonl").read_text().splitlines()]
    (row,) = (row for row in rows if row["kind"] == "init")
    assert row["tables"]["tag"] == {"kept": 3, "new": 2, "dropped": 0} and row["from_step"] > 0
    told = [f"# {line}" for line in TakenOver.from_json(row).lines()]
    assert "# table tag: 3 rows kept, 2 new, 0 dropped" in told and "\n".join(told) in dry_run(plain)
    for point in ("ckpt.before_data:2:raise", "step:5:raise"):
        with injected(point), pytest.raises(InjectedFault):
            train(killed)
    shutil.rmtree(base)  # it is not read again
    train(killed)
    assert outcome_of(tmp_path / "killed") == outcome_of(tmp_path / "plain")


@pytest.mark.fault(46)
@pytest.mark.skipif(find_spec("peft") is None, reason="needs requirements/lora.txt")
def test_adapters_find_their_rows_by_value(world: World) -> None:
    data = open_dataset(config_of(world.shuffled, world.root / "adapted"))
    for base in (f"lora.base={world.run}", f"init.run={world.run}"):
        options = (base, "lora.rank=2", "lora.targets=['*']")
        config = config_of(world.shuffled, world.root / "adapted", *options)
        state = build_state(config, data.manifest, CPU)
        state.encoding = encoding_of(data)
        taken = start_from_run(state, config, data)
        assert taken is not None and all(".lora_" in name for name in taken.new_weights)
        assert np.array_equal(world.logits(state, world.shuffled), world.logits_of_base())
    with pytest.raises(ConfigError, match=r"lora must adapt one run"):
        config_of(world.own, world.root / "both", f"lora.base={world.run}", f"init.run={world.run}")
