"""The existing items as a trie over their tokens: which token may follow which beginning.

A node is a beginning that some item has; the root is node 0, and the node under edge e is node e + 1. As
nodes are numbered level by level and in the order of their tokens, the sorted keys `node · V + token` of the
edges are the whole trie: a step is one binary search, whatever the number of beams.

Q sequences (beams), T tokens generated so far, C tokens of one item, V tokens in all, I items, P nodes.
"""

from __future__ import annotations

import torch
from torch import Tensor

DEAD = -1  # no item begins so


class Trie:
    """Of the items of one catalogue.

    Args:
        items: (I,) int64, what the leaves stand for.
        tokens: (I, C) int64, all different.
        vocabulary: V.

    Raises:
        ValueError: two items have the same tokens.

    Example:
        >>> trie = Trie(torch.tensor([7, 9]), torch.tensor([[2, 4], [2, 5]]), vocabulary=6)
        >>> node = trie.walk(torch.tensor([[2], [3]]))
        >>> query, edge = trie.children(node)
        >>> query.tolist(), (trie.keys[edge] % 6).tolist()
        ([0, 0], [4, 5])
        >>> trie.items(torch.tensor([[2, 5], [2, 2]])).tolist()
        [9, -1]
    """

    def __init__(self, items: Tensor, tokens: Tensor, *, vocabulary: int) -> None:
        self.vocabulary, self.length = vocabulary, tokens.shape[1]
        node = torch.zeros(len(tokens), dtype=torch.int64)
        keys: list[Tensor] = []
        edges = 0
        for level in range(self.length):
            found, edge = torch.unique(node * vocabulary + tokens[:, level], return_inverse=True)
            keys.append(found)
            node = edge + edges + 1
            edges += len(found)
        if len(keys[-1]) != len(items):
            raise ValueError(f"items must differ in their tokens, {len(items) - len(keys[-1])} do not")
        self.keys = torch.cat(keys)
        self.parents = self.keys // vocabulary  # (P − 1,): of the nodes 1, 2, …
        self.leaf = torch.full((edges + 1,), DEAD, dtype=torch.int64)  # (P,): the item of a leaf
        self.leaf[node] = items

    @property
    def nodes(self) -> int:
        """P."""
        return len(self.keys) + 1

    def step(self, node: Tensor, token: Tensor) -> Tensor:
        """(Q,): where a token leads from a node; `DEAD` where no item goes on so."""
        key = node * self.vocabulary + token
        edge = torch.searchsorted(self.keys, key).clamp(max=len(self.keys) - 1)
        return torch.where((self.keys[edge] == key) & (node != DEAD), edge + 1, DEAD)

    def walk(self, generated: Tensor) -> Tensor:
        """(Q,): the node of the item that each sequence is in the midst of; a finished item starts anew.

        Args:
            generated: (Q, T) int64.
        """
        begun = generated[:, generated.shape[1] // self.length * self.length :]
        node = torch.zeros(len(generated), dtype=torch.int64)
        for token in begun.unbind(1):
            node = self.step(node, token)
        return node

    def children(self, node: Tensor) -> tuple[Tensor, Tensor]:
        """Every edge out of the given nodes: the index of the node it leaves, and its own index in `keys`."""
        start = torch.searchsorted(self.keys, node * self.vocabulary)
        stop = torch.searchsorted(self.keys, (node + 1) * self.vocabulary)
        count = torch.where(node == DEAD, 0, stop - start)
        query = torch.repeat_interleave(torch.arange(len(node)), count)
        first = torch.repeat_interleave(start - (count.cumsum(0) - count), count)
        return query, first + torch.arange(len(query))

    def items(self, tokens: Tensor) -> Tensor:
        """(Q,): the item of C tokens, −1 where there is none."""
        node = torch.zeros(len(tokens), dtype=torch.int64)
        for token in tokens.unbind(1):
            node = self.step(node, token)
        return torch.where(node == DEAD, DEAD, self.leaf[node.clamp(min=0)])

    def prefix_means(self, values: Tensor, items: Tensor) -> Tensor:
        """The mean value of the items below each node.

        Args:
            values: (R, I) float, for each request.
            items: (I,), which item each column is.

        Returns:
            (R, P).
        """
        column = torch.empty(int(items.max()) + 1, dtype=torch.int64)
        column[items] = torch.arange(len(items))
        total = torch.zeros(len(values), self.nodes)
        leaves = (self.leaf != DEAD).nonzero()[:, 0]
        total[:, leaves] = values[:, column[self.leaf[leaves]]].float()
        count = (self.leaf != DEAD).float()
        # Parents come before their children: level by level from the last, each adds what is whole already.
        first = [*self._level_starts(), self.nodes]
        for low, high in zip(reversed(first[:-1]), reversed(first[1:]), strict=True):
            above = self.parents[low - 1 : high - 1]
            total.index_add_(1, above, total[:, low:high].clone())
            count.index_add_(0, above, count[low:high].clone())
        return total / count

    def _level_starts(self) -> list[int]:
        """The first node of each level below the root."""
        starts, low = [], 1
        while low < self.nodes:
            starts.append(low)
            low = 1 + int(torch.searchsorted(self.keys, low * self.vocabulary))
        return starts
