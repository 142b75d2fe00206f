"""A start from co-occurrence: values that meet in histories begin in one space (docs/unaligned-ids.md)."""
