"""The tensors of a checkpoint, read from its files only when and as far as they are asked for.

The files are mapped into memory: a rank that needs a tenth of a table touches a tenth of its bytes, whatever
the number of ranks that wrote it. safetensors holds plain numbers; nothing is unpickled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ctr.checkpoint.manifest import TENSORS, CheckpointManifest, StoredLayout, StoredPart, tensors_file
from ctr.distributed.shards import Sharded, box, inside, overlap
from ctr.errors import CheckpointError
from features.durable import fsync_path
from features.memory.shortage import is_shortage


def write_tensors(
    directory: Path, rank: int, *, whole: Mapping[str, Tensor], sharded: Mapping[str, Sharded]
) -> dict[str, list[StoredPart]]:
    """Write one rank's tensors into its file and force it to the disk.

    Args:
        directory: of the checkpoint.
        rank: of the job, which names the file.
        whole: complete tensors, of the first rank only; each with memory of its own.
        sharded: parts; tensors of which this rank has none may be among them.

    Returns:
        Tensor → the parts that are now in the file, without those that hold no element.
    """
    file, tensors, written = tensors_file(rank), dict(whole), dict[str, list[StoredPart]]()
    for name, held in sharded.items():
        written[name] = []
        for offset, values in held.parts:
            if values.numel():
                part = StoredPart(file, tuple(offset), tuple(values.shape))
                tensors[part.key(name)] = values
                written[name].append(part)
    save_file(tensors, directory / file)
    fsync_path(directory / file)
    return written


class StoredTensor:
    """A tensor in the files of a checkpoint; indexing with slices reads that part of it.

    Args:
        name: of the tensor.
        files: file name → open file.
        layout: where its parts are.
    """

    def __init__(self, name: str, files: Mapping[str, Any], layout: StoredLayout | None) -> None:
        self._slices = (
            [(part.index, files[part.file].get_slice(part.key(name))) for part in layout.parts]
            if layout
            else [((), files[TENSORS].get_slice(name))]
        )
        self.shape = layout.shape if layout else tuple(self._slices[0][1].get_shape())
        if not layout:
            self._slices = [(self.whole, self._slices[0][1])]

    @property
    def whole(self) -> tuple[slice, ...]:
        """The index of everything."""
        return box((0,) * len(self.shape), self.shape)

    @property
    def dtype(self) -> torch.dtype:
        """Known without reading values, but for a scalar."""
        first = self._slices[0][1]
        empty: Tensor = first[tuple(slice(0, 0) for _ in self.shape)] if self.shape else first[()]
        return empty.dtype

    def __getitem__(self, index: tuple[slice, ...]) -> Tensor:
        """Read a part.

        Args:
            index: one slice with start and stop, without step, for each dimension.
        """
        found = [
            (shared, where, stored)
            for where, stored in self._slices
            if (shared := overlap(index, where)) is not None
        ]
        if len(found) == 1 and found[0][0] == index:
            return found[0][2][inside(index, found[0][1])]
        values = torch.empty([s.stop - s.start for s in index], dtype=self.dtype)
        for shared, where, stored in found:
            values[inside(shared, index)] = stored[inside(shared, where)]
        return values


class StoredTensors(Mapping[str, Tensor]):
    """All tensors of a checkpoint by name; each look-up reads the whole tensor, `stored` none of it.

    Args:
        directory: of a checkpoint whose files have been verified.
        manifest: its manifest.

    Raises:
        CheckpointError: a tensor that the manifest lists is not in its file.
        SafetensorError: a file is not of this format.
        OSError: a file is gone.
    """

    def __init__(self, directory: Path, manifest: CheckpointManifest) -> None:
        self._sharded = manifest.sharded
        used = {part.file for layout in manifest.sharded.values() for part in layout.parts}
        self._files = {file: _mapped(directory / file) for file in sorted({TENSORS, *used})}
        keys = {file: set(opened.keys()) for file, opened in self._files.items()}
        parts = [(part.key(n), part) for n, layout in manifest.sharded.items() for part in layout.parts]
        for key, part in parts:
            file = self._files[part.file]
            if key not in keys[part.file] or tuple(file.get_slice(key).get_shape()) != part.shape:
                raise CheckpointError(
                    f"{directory / part.file} must hold {key} of the manifest's shape {list(part.shape)}"
                )
        own = {key for key, part in parts if part.file == TENSORS}
        self._names = sorted((keys[TENSORS] - own) | manifest.sharded.keys())

    def stored(self, name: str) -> StoredTensor:
        """A tensor of which parts can be read."""
        if name not in self._names:
            raise KeyError(name)
        return StoredTensor(name, self._files, self._sharded.get(name))

    def within(self, prefix: str) -> dict[str, StoredTensor]:
        """The tensors whose names begin with `prefix`, by the rest of their names; none is read."""
        return {name.removeprefix(prefix): self.stored(name) for name in self if name.startswith(prefix)}

    def __getitem__(self, name: str) -> Tensor:
        tensor = self.stored(name)
        return tensor[tensor.whole]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _mapped(path: Path) -> Any:
    """Open a file; it may be deleted afterwards. Torch has no error of its own for one that is gone."""
    try:
        return safe_open(path, framework="pt")
    except RuntimeError as error:
        if is_shortage(error):
            raise MemoryError(f"{path} cannot be mapped: {error}") from error
        raise FileNotFoundError(f"{path} cannot be mapped: {error}") from error
