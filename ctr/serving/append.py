"""Extending a cached request state by new events of its user: which models allow it.

A state may be extended if nothing that was computed for its events changes when newer ones follow them.

    a token of an event    may hold neither its gap to the request nor its age: both change with every request
    LONGER                 an event sees itself and earlier ones: K and V of layer 1 stay, and those of the
                           following layers, as long as the oldest event stays: that of the history and,
                           from layer 3 on, that of H_S, the k query events
    OneTrans               the same; from layer 4 on as long as the oldest event stays in a layer's window
    HyFormer, SwiGLU       each event is computed by itself in every layer; the pools are means
    everything else        events see later ones, or groups and choices of events count from the newest

What a model can do, its own file says: `Model.why_not_append`, `Model.may_grow` and `Model.append`.

R = 1 request.
"""

from __future__ import annotations

from dataclasses import replace

from ctr.batch import Batch
from ctr.models.model import Model
from ctr.models.request_state import RequestState
from ctr.tokens.features import UniqueRows


def why_not(model: Model) -> str | None:
    """Why states of a model cannot be extended by new events; None if they can."""
    config = model.config
    if config.time_gaps:
        return (
            "model.time_gaps is true: every event's token holds its gap to the request, which the next "
            "request changes; train with false"
        )
    if config.positions:
        return (
            f"model.positions is {config.positions}: positions count from the newest event, so that a new "
            "one moves all; train with 0"
        )
    if config.ngram.fields:
        return f"model.ngram.fields is {config.ngram.fields}: n-grams of new events reach into the old ones"
    return model.why_not_append()


def extend_state(model: Model, state: RequestState, batch: Batch, rows: UniqueRows) -> RequestState:
    """The state of a request whose history is the cached one and, behind it, the events of `batch`.

    Args:
        model: one for which `why_not` gives None.
        state: of R = 1 request with the older history.
        batch: the request with its own features and, as sequences, the new events alone.
        rows: embeddings of its unique IDs.

    Returns:
        The state, equal within rounding to that of the whole history.
    """
    features, dense = model.ns_tokenizer.encode(batch, rows), model.head.encode(batch)
    state = replace(state, features=features, dense=dense)
    if not any(len(events.time_gap) for events in batch.sequences.values()):
        return state
    return model.append(state, batch, rows)
