"""The one door to the general Transformer library, Hugging Face `transformers`: bodies with random weights.

A body is an architecture of the library without its vocabulary: embeddings of events in, hidden states out.

    name of an architecture ─► its model type ─► configuration ─► body on `inputs_embeds`
                                                 (our sizes, and `options` of the run)

Nothing is downloaded and no code but the library's is run: bodies come from their configurations alone. The
library is imported when a body is first asked for; it takes seconds.

D width, H heads.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import Any

import torch
from torch import nn

from ctr.library.architectures import ARCHITECTURES, TRANSFORMERS, Architecture, BodyKeys, BodySizes
from features.errors import ConfigError

# Parameters of one body; with more, a size was probably left at that of a published model.
_LARGEST = 200_000_000


def find_architecture(name: str, keys: BodyKeys) -> Architecture:
    """The architecture of a name: one of `ARCHITECTURES`, or any model type of the library.

    Raises:
        ConfigError: the library does not have it; the message names similar ones.
    """
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    known = list(load_library().CONFIG_MAPPING)
    if name in known:
        return Architecture(name)
    similar = difflib.get_close_matches(name, [*ARCHITECTURES, *known], n=4)
    raise ConfigError(
        f"{keys.section}.architecture must be one of {', '.join(ARCHITECTURES)}, or a model type of "
        f"transformers {TRANSFORMERS}, got {name!r}; similar: {', '.join(similar) or 'none'}"
    )


def library_config(name: str, sizes: BodySizes, options: Mapping[str, Any]) -> Any:
    """The library's configuration of an architecture in our sizes, with `options` in the library's words.

    Raises:
        ConfigError: an option that the architecture lacks, that is set elsewhere or has a wrong value.
    """
    keys = sizes.keys
    architecture = find_architecture(name, keys)
    kind = load_library().CONFIG_MAPPING[architecture.model_type]
    base = load_library().PreTrainedConfig.__dataclass_fields__
    fields = {field for field in kind.__dataclass_fields__ if field not in base}
    values = sizes.common() | {field: None for field in fields if field.endswith("_token_id")}
    values |= {"vocab_size": 1, "pad_token_id": 0, "use_cache": False, **_dropouts(fields, sizes.dropout)}
    values = {key: value for key, value in _own_words(kind, values).items() if key in fields}
    values |= architecture.values(sizes)
    values |= _checked(kind, fields, _own_words(kind, options), keys)
    try:
        return kind(**values)
    except Exception as error:  # the library's own checks of types and of values raise many kinds
        raise ConfigError(
            f"{keys.width}, {keys.heads} and {keys.section}.options do not make a {kind.__name__}: {error}"
        ) from None


def _own_words(kind: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values under the names that an architecture has for common ones, such as n_embd for hidden_size."""
    return {kind.attribute_map.get(key, key): value for key, value in values.items()}


def _checked(kind: Any, fields: set[str], options: dict[str, Any], keys: BodyKeys) -> dict[str, Any]:
    """The options, checked: the architecture has them and nothing else in the run sets them."""
    owned = _own_words(kind, keys.owned()) | {f: keys.words for f in fields if f.endswith("_token_id")}
    for key in options:
        if key in owned:
            raise ConfigError(
                f"{keys.section}.options must not hold {key!r}: it is set by {owned[key]}; delete it"
            )
        if key not in fields:
            raise ConfigError(
                f"{keys.section}.options must be fields of transformers' {kind.__name__}, got {key!r}; "
                f"it has {', '.join(sorted(fields - set(owned)))}"
            )
    return options


def build_body(name: str, sizes: BodySizes, options: Mapping[str, Any]) -> nn.Module:
    """A body with random weights, called as `body(inputs_embeds=(R, L, D), …).last_hidden_state` (R, L, D).

    Attention is the fused one of torch wherever the architecture has it. Experts are computed one after the
    other, and without the balancing loss, which belongs to the library's language models.

    Raises:
        ConfigError: the library is not there in the pinned version, or cannot build this.
    """
    library, config, section = load_library(), library_config(name, sizes, options), sizes.keys.section
    auto = library.AutoModelForTextEncoding if config.is_encoder_decoder else library.AutoModel
    try:
        with torch.device("meta"):
            size = sum(p.numel() for p in auto.from_config(config).parameters())
        if size > _LARGEST:
            raise ValueError(f"it would have {size:,} parameters, more than {_LARGEST:,}")
        body: nn.Module = auto.from_config(config, experts_implementation="eager")
    except Exception as error:  # whatever the architecture makes of sizes that do not suit it
        raise ConfigError(
            f"transformers cannot build {name!r}: {error}; set sizes that suit it in {section}.options, "
            f"fields of its {type(config).__name__}"
        ) from None
    # Events come as vectors, and every one of them is read: neither words nor a summary are needed.
    body.set_input_embeddings(None)  # type: ignore[operator]
    body.register_module("pooler", None)
    return body


def build_language_model(
    name: str, sizes: BodySizes, options: Mapping[str, Any], *, vocabulary: int, pad: int, start: int
) -> Any:
    """A language model with random weights: token IDs in, `logits` (R, L, vocabulary) out, and `generate`.

    Args:
        name: an architecture that sees older events only, or an encoder-decoder.
        sizes: as for `build_body`; `longest` counts tokens.
        options: fields of the library's configuration.
        vocabulary: how many tokens there are.
        pad: the padding token.
        start: the token that a decoder begins with.

    Raises:
        ConfigError: the library cannot build this, or the architecture does not generate.
    """
    library, config, section = load_library(), library_config(name, sizes, options), sizes.keys.section
    if not (config.is_encoder_decoder or find_architecture(name, sizes.keys).causal):
        able = [known for known, kind in ARCHITECTURES.items() if kind.causal]
        raise ConfigError(
            f"{section}.architecture must be one that generates, {', '.join(able)} or t5, got {name!r}"
        )
    config.vocab_size, config.use_cache = vocabulary, True
    config.pad_token_id, config.bos_token_id, config.decoder_start_token_id = pad, start, start
    auto = library.AutoModelForSeq2SeqLM if config.is_encoder_decoder else library.AutoModelForCausalLM
    try:
        return auto.from_config(config, experts_implementation="eager")
    except Exception as error:  # whatever the architecture makes of sizes that do not suit it
        raise ConfigError(
            f"transformers cannot build {name!r}: {error}; set sizes that suit it in {section}"
        ) from None


def generate(
    model: Any,
    prompt: Any,
    processors: Sequence[Callable[..., Any]],
    *,
    draft: Any = None,
    width: int = 1,
    **settings: Any,
) -> Any:
    """The library's own `generate`, with our processors of logits, in its order before its own for sampling.

    Args:
        model: of `build_language_model`.
        prompt: (R, L) token IDs, padded in front with the model's padding token.
        processors: called with the tokens so far and the scores (Q, vocabulary), give the new scores.
        draft: a smaller model that proposes tokens (speculative decoding; one request at a time).
        width: sequences of each request. The library would read the prompt once for every one of them; here
            it is read once, and its keys and values are repeated.
        settings: fields of the library's GenerationConfig.
    """
    library = load_library()
    pad = model.config.pad_token_id
    mask = (prompt != pad).long()
    read = {}
    if width > 1 and prompt.shape[1] > 1 and not model.config.is_encoder_decoder:
        position = (mask.cumsum(1) - 1).clamp(min=0)[:, :-1]
        before = model(prompt[:, :-1], attention_mask=mask[:, :-1], position_ids=position, logits_to_keep=1)
        before.past_key_values.batch_repeat_interleave(width)
        read = {"past_key_values": before.past_key_values}
    config = library.GenerationConfig(
        pad_token_id=pad,
        bos_token_id=model.config.bos_token_id,
        decoder_start_token_id=model.config.decoder_start_token_id,
        eos_token_id=None,
        return_dict_in_generate=True,
        **settings,
    )
    return model.generate(
        prompt,
        attention_mask=mask,
        generation_config=config,
        logits_processor=library.LogitsProcessorList(processors),
        assistant_model=draft,
        **read,
    )


def _dropouts(fields: set[str], dropout: float) -> dict[str, float]:
    """None on attention weights and on the events, which had theirs as tokens; ours everywhere else."""
    named = [field for field in fields if "drop" in field and "layer" not in field]
    return {field: 0.0 if "att" in field or "emb" in field else dropout for field in named}


def load_library() -> Any:
    """The library, imported offline and without kernels from its hub.

    Raises:
        ConfigError: it is not installed, or not in the pinned version.
    """
    try:
        found = metadata.version("transformers")
    except metadata.PackageNotFoundError:
        found = "none"
    if found != TRANSFORMERS:
        raise ConfigError(
            f"library encoders need transformers {TRANSFORMERS}, got {found}; "
            "`python -m pip install --no-deps -r requirements/transformers.txt`"
        )
    # Read by the library when it is imported.
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["USE_HUB_KERNELS"] = "NO"
    import transformers

    return transformers
