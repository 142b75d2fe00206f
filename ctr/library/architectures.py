"""The architectures of the Transformer library that have a name here, and the settings of each.

Settings have the names of the library's own configurations; `ctr.library.transformers` passes them on. D
width, H heads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

TRANSFORMERS = "5.23.0"  # the version whose words these are


@dataclass(frozen=True)
class BodyKeys:
    """The keys of a run's configuration that a body follows from, for messages.

    Args:
        section: holds `architecture` and `options`.
        width: sets D.
        heads: sets H.
        hidden: sets the width inside the feed-forward networks.
        words: what sets vocabulary and special tokens.
        cache: what sets whether keys and values are kept.
        halves: what sets whether a decoder is built.
    """

    section: str = "model.encoder"
    width: str = "model.d_model"
    heads: str = "model.heads"
    hidden: str = "model.encoder.expansion"
    words: str = "nothing: events are no words"
    cache: str = "nothing: training keeps no cache"
    halves: str = "nothing: only the encoder is built"

    def owned(self) -> dict[str, str]:
        """Settings of the library that `options` may not hold, and what sets them."""
        return {
            "hidden_size": self.width,
            "num_attention_heads": self.heads,
            "intermediate_size": self.hidden,
            "n_inner": self.hidden,
            "d_ff": self.hidden,
            "max_position_embeddings": "the histories' max_len",
            "vocab_size": self.words,
            "use_cache": self.cache,
            "is_encoder_decoder": self.halves,
        }


# Of the events of a click model: `model.encoder`, and the encoder in front of target attention.
ENCODER_KEYS = BodyKeys()
FRONT_KEYS = BodyKeys(section="model.sequence.encoder", hidden="model.expansion")
GENERATOR_KEYS = BodyKeys(
    section="generator",
    width="generator.d_model",
    heads="generator.heads",
    hidden="generator.expansion",
    words="the semantic IDs",
    cache="decoding, which keeps one",
    halves="generator.architecture",
)


@dataclass(frozen=True)
class BodySizes:
    """The sizes of a body that follow from a run's configuration, whatever the architecture.

    Args:
        width: D.
        heads: H.
        hidden: width inside the feed-forward networks.
        longest: the most events of a request.
        dropout: probability in [0, 1) on outputs; on attention weights only if there is one setting.
        keys: where the configuration says all that.
    """

    width: int
    heads: int
    hidden: int
    longest: int
    dropout: float = 0.0
    keys: BodyKeys = ENCODER_KEYS

    @property
    def head(self) -> int:
        """Width of a head."""
        return self.width // self.heads

    def common(self) -> dict[str, Any]:
        """The sizes under the names that most architectures share; half as many key and value heads (GQA)."""
        groups = self.heads // 2 if self.heads % 2 == 0 else 1
        return {
            "hidden_size": self.width,
            "num_attention_heads": self.heads,
            "num_key_value_heads": groups,
            "head_dim": self.head,
            "intermediate_size": self.hidden,
            "num_hidden_layers": 1,
            "max_position_embeddings": self.longest,
        }


def _deepseek(sizes: BodySizes) -> dict[str, Any]:
    """Multi-head latent attention, half of a head rotated; two of four experts and a shared one."""
    rotated = max(2, sizes.head // 4 * 2)
    latent = {"q_lora_rank": sizes.width // 2, "kv_lora_rank": max(1, sizes.width // 4)}
    heads = {
        "num_key_value_heads": sizes.heads,
        "qk_rope_head_dim": rotated,
        "qk_nope_head_dim": sizes.head,
        "v_head_dim": sizes.head,
    }
    experts = {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1}
    routing = {"n_group": 1, "topk_group": 1, "first_k_dense_replace": 0}
    return latent | heads | experts | routing | {"moe_intermediate_size": max(1, sizes.hidden // 2)}


def _gpt_oss(sizes: BodySizes) -> dict[str, Any]:
    """A window with attention sinks, two of four experts, and RoPE without stretching."""
    rope = {"rope_type": "default", "rope_theta": 10000.0}
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2}
    return {"sliding_window": 32, "rope_parameters": rope, **experts}


@dataclass(frozen=True)
class Architecture:
    """One architecture of the library.

    Args:
        model_type: its name in the library.
        causal: whether an event sees older events only, so that padding behind it needs no mask.
        values: what differs from `BodySizes.common` and from the library's defaults.
    """

    model_type: str
    causal: bool = False
    values: Callable[[BodySizes], Mapping[str, Any]] = lambda sizes: {}


# Each of these has tests. Any other model type of the library is built in the same way, and probed.
ARCHITECTURES: dict[str, Architecture] = {
    "bert": Architecture("bert", values=lambda sizes: {"type_vocab_size": 1}),
    "modernbert": Architecture("modernbert"),
    "t5": Architecture("t5", values=lambda sizes: {"d_kv": sizes.head, "d_ff": sizes.hidden}),
    "gpt2": Architecture("gpt2", causal=True, values=lambda sizes: {"n_inner": sizes.hidden}),
    "llama": Architecture("llama", causal=True),
    "qwen": Architecture("qwen3", causal=True),
    "mistral": Architecture("mistral", causal=True, values=lambda sizes: {"sliding_window": 32}),
    "deepseek": Architecture("deepseek_v3", causal=True, values=_deepseek),
    "gpt_oss": Architecture("gpt_oss", causal=True, values=_gpt_oss),
}
