"""A click-log simulator whose click probabilities, and so the best possible AUC, are known.

settings   sizes and clock
catalogue      items, categories, brands, and the hidden tables
people     users: profiles, drifting interests, request times
events     views, carts, searches
show       candidates and positions of a request
clicks     the click model
accidents  clicks that nobody meant
block      a block of users, round by round
best       the best possible AUC
learnable  the best AUC that can be learned
tables     Arrow tables
write      files
by_day     a log cut into days
run        simulate: all of it
"""

from features.synthetic.best import best_auc
from features.synthetic.by_day import write_days
from features.synthetic.clicks import ClickModel
from features.synthetic.learnable import learnable_auc
from features.synthetic.run import simulate
from features.synthetic.settings import Sizes

__all__ = ["ClickModel", "Sizes", "best_auc", "learnable_auc", "simulate", "write_days"]
