"""Scores requests with an exported model; torch and safetensors are all it needs.

python load.py [FILE.safetensors] [REQUESTS_AT_A_TIME] prints a line per candidate: its score, or a list of
scores as "outputs" of schema.json names them.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file


def opened(folder: Path) -> tuple[Any, ...]:
    """Schema, tables and both halves: compiled for this kind of processor, or graphs that run on any."""

    def half(name: str) -> Any:
        if (compiled := folder / f"{name}.aoti.pt2").exists():
            return torch._inductor.aoti_load_package(str(compiled))
        return torch.export.load(folder / f"{name}.pt2").module()

    schema = json.loads((folder / "schema.json").read_text())
    tables = load_file(folder / "tables.safetensors", schema["device"])
    return schema, {name: tables[name] for name in schema["tables"]}, half("encode"), half("score")


def pad(values: torch.Tensor, ends: torch.Tensor, least: int) -> torch.Tensor:
    """Row r holds values[ends[r] : ends[r + 1]] and, behind them, zeros."""
    slots = torch.arange(max([least, *ends.diff().tolist()]))
    rows = torch.where(slots < ends.diff()[:, None], ends[:-1, None] + slots, len(values))
    return torch.cat([values, values.new_zeros(1, *values.shape[1:])])[rows]


def inputs(schema: Any, half: str, file: dict[str, Any], requests: torch.Tensor) -> dict[str, Any]:
    """What one half reads of some requests of a file, given by their numbers, one behind the other."""
    made, least, first, last = {}, schema["least"], int(requests[0]), int(requests[-1]) + 1
    for name, per, is_list in ((column["name"], column["per"], column["list"]) for column in schema[half]):
        ends = (torch.arange(last + 1) if per == "request" else file[f"{per}.ends"])[first : last + 1]
        values = file[name][ends[0] : ends[-1]]
        if is_list:
            of_list = file[f"{name}.ends"][ends[0] : ends[-1] + 1]
            values = pad(file[name][of_list[0] : of_list[-1]], of_list - of_list[0], least)
        made[name] = (values if per == "request" else pad(values, ends - ends[0], least)).to(schema["device"])
    return made


@torch.inference_mode()
def score(model: tuple[Any, ...], file: dict[str, Any], at_a_time: int, logits: bool = False) -> torch.Tensor:
    """Scores (or logits) of all candidates of a file, (candidates,), or (candidates, outputs)."""
    (schema, tables, encode, read), counts, found = model, file["candidate.ends"].diff(), []
    for some in torch.arange(len(counts)).split(at_a_time):
        state = encode(tables, inputs(schema, "encode", file, some))  # may be kept for other candidates
        made = read(tables, state, inputs(schema, "score", file, some))[logits].cpu()
        found.append(made[torch.arange(made.shape[1]) < counts[some, None]])
    return torch.cat(found)


if __name__ == "__main__":
    here, given = Path(__file__).parent, sys.argv[1:]
    file = load_file(given[0] if given else here / "example.safetensors")
    print(*score(opened(here), file, int(given[1]) if len(given) > 1 else 64).tolist(), sep="\n")
