"""Measurements that repeat: calibration first, then parity, then interleaved medians and their ratios.

environment, calibration   what was measured on, and how fast that is
timing                     interleaved samples, medians, ratios
shape, synthetic           a data set in the shape of the competition's, for when none is at hand
workload                   the trainer's own step on batches of the trainer's own loader
rewrite, variants          one optimisation switched off, from outside of the model
flops, memory              operations of a step; peak memory of a case, in a process of its own
results, report, plots     figures → tables, targets, pictures, pages
suites                     what is measured
"""
