"""Parameters and floating-point operations of the blocks, as formulas.

A multiplication and an addition count as two operations; norms, activations and biases are left out, as in
the papers. Forward only: training takes about three times as much.

L events, d width, K events of one merged token, k queries of events, m global tokens, B candidates, T mixer
tokens, M ns tokens, N query tokens, S sequences. FFNs are 4 d wide inside, with biases; norms are LayerNorm.

Source: LONGER (arXiv 2505.04421), token merge, for the plain and the merged layer.
"""

from __future__ import annotations


def layer_parameters(width: int) -> int:
    """12 d² + 13 d: attention 4 d² + 4 d, FFN 8 d² + 5 d, two norms 4 d.

    Example:
        >>> layer_parameters(32)
        12704
    """
    return 12 * width**2 + 13 * width


def layer_flops(length: int, width: int) -> int:
    """24 L d² + 4 L² d: projections 8 L d², FFN 16 L d², attention 4 L² d."""
    return 24 * length * width**2 + 4 * length**2 * width


def merged_layer_parameters(width: int, group: int) -> int:
    """12 K² d² + 13 K d: a plain layer of width K d."""
    return layer_parameters(group * width)


def merged_layer_flops(length: int, width: int, group: int) -> int:
    """24 L K d² + 4 L² d / K: a plain layer on ⌈L / K⌉ tokens of width K d."""
    return layer_flops(-(-length // group), group * width)


def merge_ratio(length: int, width: int, group: int) -> float:
    """(6 d K + L / K) / (6 d + L): operations of a layer after the merge, relative to before.

    Example:
        >>> round(1 - merge_ratio(2048, 32, 4), 3)
        0.429
    """
    return (6 * width * group + length / group) / (6 * width + length)


def causal_layer_flops(length: int, queries: int, globals_: int, width: int, *, candidates: int = 1) -> int:
    """A cross-causal (k < L) or self-causal (k = L) layer for one request of C candidates; k = 0 in the last.

    Sequence side, once: K and V of L events 4 L d², k queries 20 k d², attention 4 k L d. Candidate side:
    24 d² for each of C m global tokens, and attention 4 C m (L + C m) d: keys of other candidates are masked,
    not skipped. (Packed attention, in training on a CPU, skips them: 4 C m (L + m) d.)
    """
    asked = candidates * globals_
    sequence = 4 * length * width**2 + 20 * queries * width**2 + 4 * queries * length * width
    return sequence + 24 * asked * width**2 + 4 * asked * (length + asked) * width


def query_generation_parameters(width: int, ns_tokens: int, sequences: int, queries: int, hidden: int) -> int:
    """N FFNs on GlobalInfo of width (M + S) d, with biases."""
    return queries * ((ns_tokens + sequences) * width * hidden + hidden + hidden * width + width)


def query_generation_flops(
    candidates: int, requests: int, width: int, ns_tokens: int, sequences: int, queries: int, hidden: int
) -> int:
    """2 N h (B M d + R S d + B d): the pools' part of the first map once per request."""
    rows = candidates * (ns_tokens + 1) + requests * sequences
    return 2 * queries * hidden * rows * width


def query_decoding_flops(length: int, queries: int, width: int, *, candidates: int = 1) -> int:
    """One sequence of one request: K and V 4 L d² once, then 4 d² + 4 L d for each of C N queries."""
    return 4 * length * width**2 + candidates * queries * (4 * width**2 + 4 * length * width)


def per_token_ffn_parameters(tokens: int, width: int, hidden: int) -> int:
    """T (2 d h + h + d): weights grow with T, operations do not."""
    return tokens * (2 * width * hidden + hidden + width)


def per_token_ffn_flops(candidates: int, tokens: int, width: int, hidden: int) -> int:
    """4 B T d h, as of an FFN shared by all tokens."""
    return 4 * candidates * tokens * width * hidden
