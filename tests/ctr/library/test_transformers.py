"""Encoders of the Transformer library: equal to the library alone, blind to padding, offline."""

from __future__ import annotations

import ast
import json
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from ctr.bench.flops import count_flops
from ctr.blocks import length_buckets
from ctr.blocks.attention import TransformerLayer
from ctr.blocks.encoders import AttentionEncoder, SwiGLUEncoder
from ctr.blocks.jagged import Jagged
from ctr.library.architectures import ARCHITECTURES, BodySizes
from ctr.library.encoder import LibraryEncoder
from ctr.library.transformers import build_body
from ctr.models.sequence.side import SideSizes
from ctr.models.sequence.target_attention import LibraryFrontConfig
from features.errors import ConfigError
from tests.ctr.reference.flops import layer_flops
from tests.ctr.reference.parity import LENGTHS, assert_parity, gradients, rand, scrambled, split

D = 12
SIZES = BodySizes(width=D, heads=2, hidden=20, longest=max(LENGTHS))
LAYERS: dict[str, Any] = {"num_hidden_layers": 2}
EXPERTS = ("deepseek", "gpt_oss")
every = pytest.mark.parametrize("name", ARCHITECTURES)


def jagged(values: Tensor, lengths: list[int] = LENGTHS) -> Jagged:
    return Jagged.from_lengths(values, torch.tensor(lengths, dtype=torch.int64))


def encoder(name: str, **options: Any) -> LibraryEncoder:
    block = LibraryEncoder(name, SIZES, LAYERS | options)
    scrambled(block)
    return block.eval()


def direct(body: nn.Module, events: Tensor) -> Tensor:
    """What the library says to the events of one request (L, D), left to its own defaults."""
    states: Tensor = body(inputs_embeds=events[None]).last_hidden_state[0]
    return states


@every
@pytest.mark.parametrize("min_slots", [1, 2048], ids=["many buckets", "one bucket"])
def test_equals_the_library_on_each_request_alone(
    name: str, min_slots: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outputs and the gradients of events and of all weights; none of the weights is idle."""
    monkeypatch.setattr(length_buckets, "_MIN_SLOTS", min_slots)
    block, events = encoder(name), rand(sum(LENGTHS), D)
    assert len(length_buckets.LengthBuckets.of(jagged(events)).counts) == (
        1 if min_slots > 1 else len(LENGTHS)
    )
    got = block(jagged(events)).values
    want = torch.cat([direct(block.body, own) for own in split(events, LENGTHS) if len(own)])
    # Some norms and routers of the library compute in float32, whatever they are given.
    assert_parity([got], [want], block, [events], tolerance=1e-6)
    named = dict(block.named_parameters())
    found = gradients([block(jagged(events)).values], list(named.values()))
    assert [key for key, gradient in zip(named, found, strict=True) if not gradient.any()] == []


@every
def test_who_sees_whom(name: str) -> None:
    """Causal architectures show no event to an older one, the others do; no request sees another."""
    block, events = encoder(name), rand(sum(LENGTHS), D).detach()
    newest, neighbour = LENGTHS[0] + LENGTHS[1] + LENGTHS[2] - 1, 0
    before = block(jagged(events)).values
    events[newest] = 9.0
    events[neighbour] = float("nan")
    after = block(jagged(events)).values
    kept = after.isclose(before, atol=1e-12).all(dim=1).nonzero().flatten().tolist()
    own = range(LENGTHS[0], newest)
    assert [i for i in kept if i in own] == (list(own) if ARCHITECTURES[name].causal else [])
    assert [i for i in kept if i > newest] == list(range(newest + 1, sum(LENGTHS)))


@pytest.mark.parametrize("name", ["mistral", "gpt_oss"])
def test_a_sliding_window_ends(name: str) -> None:
    """An event reaches one later event per layer with a window of two."""
    types = {"layer_types": ["sliding_attention"] * 2} if name == "gpt_oss" else {}
    block = encoder(name, sliding_window=2, **types)
    events = rand(9, D)
    reached = gradients([block(jagged(events, [9])).values[5]], [events])[0].any(dim=1)
    assert reached.tolist() == [i in (3, 4, 5) for i in range(9)]


@every
def test_without_events(name: str) -> None:
    block, empty = encoder(name), rand(0, D)
    for lengths in ([], [0, 0]):
        out = block(jagged(empty, lengths))
        assert out.values.shape == (0, D) and out.requests == len(lengths)


@every
def test_bf16_is_near_float32(name: str) -> None:
    block, events = encoder(name).float(), rand(sum(LENGTHS), D).detach().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = block(jagged(events.bfloat16())).values
    close = {"atol": 0.15, "rtol": 0.1}
    if name not in EXPERTS:  # rounding may send an event to another expert
        torch.testing.assert_close(half.float(), block(jagged(events)).values, **close)
    half.float().square().sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in block.parameters() if p.grad is not None)


def as_ours(layer: nn.Module, *, placement: str) -> dict[str, Tensor]:
    """The weights of a BERT-like layer of the library under the names of our encoder."""
    theirs, ours = dict(layer.named_parameters()), {}
    norms = {"post": ("attention.output.LayerNorm", "output.LayerNorm"), "pre": ("attention.ln", "ln")}
    names = {
        "attention.query": ["attention.self.query"],
        "attention.key_value": ["attention.self.key", "attention.self.value"],
        "attention.output": ["attention.output.dense"],
        "around_attention.norm": [norms[placement][0]],
        "ffn.up": ["intermediate.dense"],
        "ffn.down": ["output.dense"],
        "around_ffn.norm": [norms[placement][1]],
    }
    for mine, parts in names.items():
        for kind in ("weight", "bias"):
            ours[f"{mine}.{kind}"] = torch.cat([theirs[f"{part}.{kind}"] for part in parts])
    return ours


@pytest.mark.parametrize(("name", "placement"), [("bert", "post"), ("megatron-bert", "pre")])
def test_our_transformer_block_is_the_librarys(name: str, placement: Any) -> None:
    body = build_body(name, SIZES, {"layer_norm_eps": 1e-5, "hidden_act": "gelu"})
    layer = scrambled(body.get_submodule("encoder.layer.0")).eval()
    ours: TransformerLayer = AttentionEncoder(D, 2, hidden=SIZES.hidden, placement=placement)
    events = rand(sum(LENGTHS), D)
    got = functional_call(ours, as_ours(layer, placement=placement), (jagged(events),)).values
    alone = [layer(own[None]) for own in split(events, LENGTHS) if len(own)]
    want = torch.cat([out[0] if isinstance(out, Tensor) else out[0][0] for out in alone])
    assert_parity([got], [want], layer, [events])


def test_our_swiglu_is_llamas() -> None:
    body = build_body("llama", SIZES, {})
    mlp = scrambled(body.get_submodule("layers.0.mlp"))
    theirs = {name: parameter for name, parameter in mlp.named_parameters()}
    gate_up = torch.cat([theirs["gate_proj.weight"], theirs["up_proj.weight"]])
    weights = {"swiglu.gate_up.weight": gate_up, "swiglu.down.weight": theirs["down_proj.weight"]}
    events = rand(sum(LENGTHS), D)
    ours = SwiGLUEncoder(D, hidden=SIZES.hidden, residual=False).double()
    got = functional_call(ours, weights, (jagged(events),)).values
    assert_parity([got], [mlp(events)], mlp, [events])


def test_operations_are_counted() -> None:
    """One BERT layer with a 4 D feed-forward: 24 L D² + 4 L² D."""
    block = LibraryEncoder("bert", BodySizes(16, 2, 64, 8), {}).eval()
    events = jagged(torch.randn(8, 16), [8])
    assert count_flops(lambda: block(events)) == layer_flops(8, 16)


def test_dropout_is_ours_and_spares_attention_weights() -> None:
    def rates(name: str) -> dict[str, float]:
        config = build_body(name, BodySizes(D, 2, 20, 9, 0.25), {}).config
        return {key: value for key, value in config.to_dict().items() if "drop" in key and "class" not in key}

    assert rates("bert") == {"hidden_dropout_prob": 0.25, "attention_probs_dropout_prob": 0.0}
    assert rates("gpt2")["resid_pdrop"] == 0.25 and rates("gpt2")["attn_pdrop"] == 0.0
    assert rates("modernbert") == {"mlp_dropout": 0.25, "attention_dropout": 0.0, "embedding_dropout": 0.0}


@every
def test_attention_is_fused_where_the_library_has_it(name: str) -> None:
    config = build_body(name, SIZES, {}).config
    assert config._attn_implementation == ("eager" if name == "gpt_oss" else "sdpa")


def test_any_other_model_type_is_probed() -> None:
    block, events = encoder("olmo2"), rand(sum(LENGTHS), D)
    want = torch.cat([direct(block.body, own) for own in split(events, LENGTHS) if len(own)])
    torch.testing.assert_close(block(jagged(events)).values, want)
    with pytest.raises(ConfigError, match="'vit' of the library does not encode sequences"):
        encoder("vit")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lama", {}, "must be one of bert, .*got 'lama'; similar: llama"),
        ("bert", {"num_experts": 2}, "must be fields of transformers' BertConfig, got 'num_experts'; it has"),
        ("gpt2", {"n_embd": 8}, "must not hold 'n_embd': it is set by model.d_model"),
        ("gpt2", {"num_key_value_heads": 1}, "must be fields of transformers' GPT2Config"),
        ("llama", {"max_position_embeddings": 8}, "it is set by the histories' max_len"),
        ("llama", {"auto_map": {}}, "must be fields"),
        ("llama", {"dtype": "float16"}, "must be fields"),
        ("bert", {"num_hidden_layers": "two"}, "do not make a BertConfig: .*num_hidden_layers"),
        ("bert", {"hidden_act": "none"}, "cannot build 'bert'"),
        ("llama", {"num_key_value_heads": 7}, "'llama' of the library does not encode"),
        ("deepseek", {"moe_intermediate_size": 2**24}, "more than 200,000,000"),
    ],
)
def test_wrong_choices_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LibraryEncoder(name, SIZES, options)


@pytest.mark.parametrize(
    ("architecture", "options", "message"),
    [
        ("lama", {}, "model.sequence.encoder.architecture must be one of"),
        ("bert", {"intermediate_size": 8}, "model.sequence.encoder.options must not .* by model.expansion"),
        ("vit", {}, "model.sequence.encoder.architecture 'vit' of the library does not encode"),
    ],
)
def test_an_encoder_before_target_attention_is_refused_by_its_own_key(
    architecture: str, options: dict[str, Any], message: str
) -> None:
    front = LibraryFrontConfig(architecture=architecture, options=options)
    with pytest.raises(ConfigError, match=message):
        front.build(SideSizes(D, 2, 2.0, "layer", 0.0, longest=9, ns_tokens=1))


def test_the_pinned_version_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: "5.0.0")
    with pytest.raises(ConfigError, match=r"transformers 5\.\S+, got 5\.0\.0.*requirements/transformers.txt"):
        build_body("bert", SIZES, {})


SCRIPT = """
import json, socket, sys
def refuse(*_): raise OSError("the network was asked")
socket.socket.connect = socket.getaddrinfo = refuse
from ctr.build import build_model
from ctr.models.registry import model_config
from tests.ctr import batches
def logits(**encoder):
    config = model_config(d_model=12, heads=2, queries={"view": 2}, encoder=encoder)
    model = build_model(batches.manifest(), config, dim=batches.DIM, seed=1).double()
    return model(batches.make_batch(), batches.make_rows()).shape
logits(kind="transformer")
before = [name for name in ("transformers", "tokenizers", "huggingface_hub", "peft") if name in sys.modules]
logits(kind="library", architecture="bert")
import transformers, kernels
from huggingface_hub.constants import HF_HUB_OFFLINE
from transformers.utils import is_kernels_available
print(json.dumps([before, HF_HUB_OFFLINE, is_kernels_available(), hasattr(kernels, "get_kernel")]))
"""


@pytest.mark.slow
def test_the_core_is_without_the_library_and_the_library_without_network(repo_root: Path) -> None:
    """Our package `kernels` is on the path, under the name of a distribution that the library looks for."""
    run = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(run, cwd=repo_root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[], True, False, False]


def test_nothing_is_asked_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process; from its first import on: the slow test above."""

    def refuse(*_: Any) -> None:
        raise OSError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    build_body("bert", SIZES, {})
    from huggingface_hub.constants import HF_HUB_OFFLINE
    from transformers.utils import is_kernels_available

    assert HF_HUB_OFFLINE and not is_kernels_available()


def test_the_door_imports_the_library_when_it_is_asked(repo_root: Path) -> None:
    """Its top-level imports are others: who builds no body of the library does not load it."""
    for name in ("library/transformers", "training/lora"):
        tree = ast.parse((repo_root / "ctr" / f"{name}.py").read_text(encoding="utf-8"))
        found = [alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names]
        found += [str(node.module) for node in tree.body if isinstance(node, ast.ImportFrom)]
        assert "__future__" in found and not [n for n in found if n.split(".")[0] in ("transformers", "peft")]
