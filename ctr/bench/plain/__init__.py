"""The models in plain torch, as whoever follows the papers writes them first: to compare their speed with.

    data      a batch in which every candidate has a history of its own, padded to the longest
    layers    norms, feed-forward parts, attention under a mask
    tokens    embeddings, tokens of features, tokens of events
    pooled, attending        the sequence sides of the grid
    interactions             the interaction sides
    stacks    HyFormer, LONGER, two-stage, OneTrans, HSTU
    step      nn.Embedding, autograd, Adam over whole tables

Each function reads the weights of a model of this project and computes the same numbers: outputs and each
gradient are compared in tests/ctr/bench/plain. Nothing is packed, shared, compiled or made unique.
"""
