"""The table of predictions, in which models, baselines, evaluations and comparisons meet.

A row is an impression:

| column | is |
|---|---|
| row_id, request_id, user_id, item_id | codes of the data set |
| time | of the request, seconds |
| label | int8, or null where it is not known |
| score, logit | probability, float64, and its log-odds, float32 |
| label_<name>, score_<name> | the same of each further output of a run with `tasks` |
| user_key, item_key | raw keys as they were read, integers or text |
| log_row, log_line, log_file | where the row stood in the raw impressions table, see features/dataset.py |
| slice_<name> | what figures are also shown by |

Where scores are calibrated (`calibration` of the run), raw_score and raw_score_<name> are those without it;
the logit is the model's own. Where negatives are sampled, in the log or in training, sampled_score and
sampled_weight are of the first task as if nothing made up for that: the odds are those of the kept rows.

What the outputs are stands in ctr/predictions/outputs.py; the schema's metadata names all of them, the first
one first.

Slices are history (length bucket, all domains together), known_user and known_item (whether training
has seen them before), item_age (days since the item was first shown), and those that the spec names.
Keys and places are there as far as the data set has them; texts are dictionary-encoded. Whoever reads a table
needs label and score, and takes what else is there.
"""

from ctr.predictions.keys import RowKeys
from ctr.predictions.outputs import Output, outputs_of
from ctr.predictions.split import SplitRows
from ctr.predictions.write import write_predictions, write_rows

__all__ = ["Output", "RowKeys", "SplitRows", "outputs_of", "write_predictions", "write_rows"]
