"""A partitioned prepare beside the directory that it fills: its work, its workers, and what they leave."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from features.durable import remove
from features.errors import DataError
from features.partitions.prepare import prepare_parts
from features.partitions.run import Prepared
from features.partitions.survey import Unsteady
from features.partitions.tasks import OnProgress, work_directory
from features.partitions.workers import Resources, open_workers
from features.read.log import Tables
from features.spec import Spec


@contextmanager
def in_parts(
    spec: Spec,
    full: Spec,
    tables: Tables,
    out: Path,
    *,
    base: Path,
    parts: int,
    left_out: Sequence[str],
    resources: Resources,
    tell: OnProgress,
) -> Iterator[Prepared]:
    """Partition by partition; the files lie beside `out` until the block ends, and longer if it raises.

    Args:
        spec: as written.
        full: without patterns, its tables on this machine.
        tables: its raw tables.
        out: the directory that is to be.
        base: what `source.path` is relative to.
        parts: how many partitions.
        left_out: raw files that cannot be read and are left out.
        resources: who runs the tasks.
        tell: told what begins.
    """
    work = out.absolute().with_name(f".{out.name}.parts")
    local = spec.model_copy(update={"source": full.source})  # what the tasks read was found here
    with work_directory(work, f"{spec.digest()} {parts}"):
        try:
            with open_workers(resources) as executor:
                prepared = prepare_parts(
                    full,
                    local,
                    tables,
                    work,
                    base=base.absolute(),
                    parts=parts,
                    left_out=left_out,
                    executor=executor,
                    tell=tell,
                )
        except Unsteady as reason:
            raise DataError(f"{reason}; only one partition can tell, so leave --partitions out") from None
        yield prepared
    remove(work)
