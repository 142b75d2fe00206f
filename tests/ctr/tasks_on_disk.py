"""The tiny data set with three tasks, as files; every row counts once."""

from __future__ import annotations

from pathlib import Path

import pyarrow.ipc as ipc

from features.dataset import MANIFEST, SPLITS, Dataset, sha256_of
from tests.ctr.task_dataset import TASKS, with_tasks
from tests.ctr.tiny_run import tiny_dataset


def write_tasks(folder: Path) -> Path:
    """Write it below a folder; returns its root."""
    root = tiny_dataset(folder)
    dataset = Dataset(root)
    whole = with_tasks(dataset)
    tables = {name: whole.split(name).impressions.drop_columns("target_weight.buy") for name in SPLITS}
    tasks = [task.model_copy(update={"weighted": False}) for task in TASKS]
    files = dict(dataset.manifest.files)
    for name, table in tables.items():
        path = root / name / "impressions.arrow"
        path.unlink()  # it is mapped
        with ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
        files[f"{name}/impressions.arrow"] = sha256_of(path)
    manifest = dataset.manifest.model_copy(update={"tasks": tasks, "files": files})
    (root / MANIFEST).write_text(manifest.model_dump_json())
    return root
