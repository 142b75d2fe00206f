"""N-gram embedding: the vector of an event from its own ID and the IDs before it.

L events of one request, U unique IDs of a table, N longest n-gram, K tables per order, E embedding width.
"""

from __future__ import annotations

from torch import Tensor, nn

from ctr.batch import SequenceBatch
from ctr.blocks.padded import PaddedEvents
from ctr.tokens.features import UniqueRows, look_up
from ctr.tokens.ngram import NgramField
from kernels.unique_pooling import gather_sum


class NgramEmbedding(nn.Module):
    """e_i = (E_0(t_i) + Σ_{n=2}^{N} Σ_{k=1}^{K} W_{n,k} E_{n,k}(H_{n,k})) / ((N − 1) K + 1).

    The rows E_{n,k} are looked up like those of every table. W_{n,k} is applied to the unique rows, which
    gives the same, since a linear map commutes with a gather.

    Source: arXiv 2601.21204, N-gram Embedding.
    Differs from the paper: E_0 and the sum are E wide and a linear map leads to the model's width, as for
    every other field of an event.

    Args:
        field: the field and its sub-tables.
        dim: E.
    """

    def __init__(self, field: NgramField, *, dim: int) -> None:
        super().__init__()
        self.field = field
        self.maps = nn.ModuleList(nn.Linear(field.dim, dim, bias=False) for _ in field.tables)

    def forward(self, events: SequenceBatch, rows: UniqueRows) -> Tensor:
        """(ΣL, E)."""
        if isinstance(events, PaddedEvents):  # rows are whole tables: only what is gathered is mapped
            return self._of_gathered(events, rows)
        column = self.field.column
        vectors, columns = [rows[str(column.table)]], [events.ids[column.name]]
        for table, linear in zip(self.field.tables, self.maps, strict=True):
            vectors.append(linear(rows[table.name]))
            columns.append(events.ids[table.name])
        return gather_sum(vectors, [ids.inverse_indices for ids in columns]) / len(vectors)

    def _of_gathered(self, events: SequenceBatch, rows: UniqueRows) -> Tensor:
        column = self.field.column
        total = look_up(rows[str(column.table)], events.ids[column.name])
        for table, linear in zip(self.field.tables, self.maps, strict=True):
            total = total + linear(look_up(rows[table.name], events.ids[table.name]))
        return total / (1 + len(self.maps))
