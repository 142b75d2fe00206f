"""`ctr prepare` of logs that do not fit into memory: stages of tasks over partitions, exact for any number.

    survey ─► ingest ─► (rank) ─► users ─► rows ─► before ─► count ─► … ─► fit ─► encode ─► store
    by share of a table           by user  by range of time, every key's totals handed on

docs/scale.md explains it.
"""
