"""Scores requests with an exported model; torch and safetensors are all it needs.

python load.py [FILE.safetensors] [REQUESTS_AT_A_TIME] prints a score a line, candidate by candidate.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

Tensors = dict[str, torch.Tensor]
Loaded = tuple[dict[str, Any], Tensors, Callable[..., Any], Callable[..., Any]]


def opened(folder: Path) -> Loaded:
    """Schema, tables and both halves: compiled for this kind of processor, or graphs that run on any."""

    def program(name: str) -> Callable[..., Any]:
        if (compiled := folder / f"{name}.aoti.pt2").exists():
            return torch._inductor.aoti_load_package(str(compiled))
        return torch.export.load(folder / f"{name}.pt2").module()

    schema = json.loads((folder / "schema.json").read_text())
    tables = load_file(folder / "tables.safetensors", schema["device"])
    return schema, {name: tables[name] for name in schema["tables"]}, program("encode"), program("score")


def pad(values: torch.Tensor, ends: torch.Tensor, least: int) -> torch.Tensor:
    """Row r holds values[ends[r] : ends[r + 1]] and, behind them, zeros."""
    slots = torch.arange(max([least, *ends.diff().tolist()]))
    rows = torch.where(slots < ends.diff()[:, None], ends[:-1, None] + slots, len(values))
    return torch.cat([values, values.new_zeros(1, *values.shape[1:])])[rows]


def inputs(schema: dict[str, Any], half: str, file: Tensors, first: int, last: int) -> Tensors:
    """What one half reads of the requests `first` to `last` − 1 of a file."""
    made, least = {}, schema["least"]
    for name, per, is_list in ((c["name"], c["per"], c["list"]) for c in schema[half]):
        ends = (torch.arange(last + 1) if per == "request" else file[f"{per}.ends"])[first : last + 1]
        values = file[name][ends[0] : ends[-1]]
        if is_list:
            of_list = file[f"{name}.ends"][ends[0] : ends[-1] + 1]
            values = pad(file[name][of_list[0] : of_list[-1]], of_list - of_list[0], least)
        made[name] = values if per == "request" else pad(values, ends - ends[0], least)
    return {name: values.to(schema["device"]) for name, values in made.items()}


@torch.inference_mode()
def score(model: Loaded, file: Tensors, at_a_time: int) -> torch.Tensor:
    """Probabilities of all candidates of a file, float64 (candidates,), or (candidates, tasks)."""
    schema, tables, encode, read = model
    counts, logits = file["candidate.ends"].diff(), []
    for first in range(0, len(counts), at_a_time):
        last = min(first + at_a_time, len(counts))
        state = encode(
            tables, inputs(schema, "encode", file, first, last)
        )  # may be kept for other candidates
        found = read(tables, state, inputs(schema, "score", file, first, last)).cpu()
        logits.append(found[torch.arange(found.shape[1]) < counts[first:last, None]])
    return torch.cat(logits).double().sigmoid()


if __name__ == "__main__":
    here, given = Path(__file__).parent, sys.argv[1:]
    file = load_file(given[0] if given else here / "example.safetensors")
    model, begin = opened(here), time.perf_counter()
    scores = score(model, file, int(given[1]) if len(given) > 1 else 64)
    seconds = time.perf_counter() - begin
    print(*scores.tolist(), sep="\n")
    requests = len(file["candidate.ends"]) - 1
    print(f"{requests} requests, {len(scores)} candidates in {seconds:.2f} s", file=sys.stderr)
    if "score" in file:
        print(
            f"largest difference to ctr predict: {(scores - file['score']).abs().max():.1e}", file=sys.stderr
        )
