"""A run that learns from another one's predictions: it resumes bit by bit, and is off at weight 0."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ctr.config import parse_config
from ctr.errors import CheckpointError
from ctr.runs.journal import read_rows
from features.durable.faults import InjectedFault, injected
from pipelines.cli import main
from pipelines.train import train
from tests.ctr.tiny_run import outcome_of, settings, tiny_dataset


def test_a_student_goes_on_with_the_same_teacher_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tiny_dataset(tmp_path)
    usual = ("train.hidden_rows=0", "train.checkpoint_every=2", "train.epochs=1", "model.dropout=0.2")
    teacher = tmp_path / "teacher"
    train(parse_config(settings(data, teacher, *usual, "seed=5")))
    assert main(["predict", str(teacher), "--split", "train"]) == 0
    told = (f"train.distill.predictions={teacher}", "train.distill.temperature=2")

    def student(name: str, *options: str) -> Path:
        train(parse_config(settings(data, tmp_path / name, *usual, *options)))
        return tmp_path / name

    capsys.readouterr()
    whole = student("whole", *told)
    assert "0.5 of the loss is learned from" in capsys.readouterr().err
    with injected("step:3:raise"), pytest.raises(InjectedFault):
        student("broken", *told)
    student("broken", *told)
    assert outcome_of(tmp_path / "broken") == outcome_of(whole)
    last = [row for row in read_rows(whole / "journal.jsonl") if row["kind"] == "train"][-1]
    assert "ne" not in last and last["loss"] > 0  # an NE of soft labels says nothing

    file = teacher / "predictions" / "train.parquet"
    table = pq.read_table(file)
    pq.write_table(
        table.set_column(table.column_names.index("logit"), "logit", pa.array([0.0] * len(table))), file
    )
    with pytest.raises(CheckpointError, match="must go on with the predictions that it has learned from"):
        student("broken", *told)
    assert main(["evaluate", str(whole)]) == 0  # scoring needs no teacher

    plain, off = (
        outcome_of(student(*names)) for names in (("plain",), ("off", *told, "train.distill.weight=0"))
    )
    tensors = [name for name in plain["hashes"] if name.endswith(".safetensors")]
    assert tensors and all(plain["hashes"][name] == off["hashes"][name] for name in tensors)
    assert plain["journal"] == off["journal"]
    assert any(outcome_of(whole)["hashes"][name] != plain["hashes"][name] for name in tensors)
