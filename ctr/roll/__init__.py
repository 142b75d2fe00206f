"""Day after day: prepare, test on the new day, train on it, compare with the model before, promote or not."""
