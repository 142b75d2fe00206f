"""The layers of HyFormer, LONGER and RankMixer: tensors in, tensors out, no feature names.

The sequence side is jagged and lives per request (`Jagged`), the candidate side has one row per
candidate; `RequestMap` lets every candidate read the events of its request without copying them.
"""
