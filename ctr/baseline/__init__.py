"""What a deep model must beat: logistic regression and LightGBM, fitted on the rows of the training part.

| kind | sees |
|---|---|
| logistic | the dense features: already scaled, missing = 0 with its indicator |
| lightgbm | the same |
| lightgbm-ids | the same, and every ID feature of one value as a category: users, items, hours, bands |

No kind sees the sequences. Their scores are tables of `ctr.predictions`, as those of any model.
"""

from ctr.baseline.fit import BASELINES, score_baseline, write_baseline

__all__ = ["BASELINES", "score_baseline", "write_baseline"]
