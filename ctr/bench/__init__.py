"""Repeatable measurements: the machine is calibrated, results are compared, then times are taken in turn.

environment, calibration   the machine and its versions; how fast it is right now
timing                     interleaved samples, medians, ratios
shape, synthetic           a synthetic data set with the sizes of the competition's
workload                   the trainer's own step on batches of the trainer's own loader
rewrite, variants          single optimisations switched off, without switches in the model's code
plain                      the models in plain torch, to compare their speed with
flops, memory              operations of a step; peak memory of a case, in a process of its own
results, report, plots     figures → tables, targets, pictures, pages
suites                     the measurements, a module each
"""
