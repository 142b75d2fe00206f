"""Tracking of a run: every row goes to the journal first, and from there, in a thread of its own, to MLflow.

MLflow is a replica that may be slow, down or absent. The thread follows the journal *file*, so nothing is
queued in memory and nothing is lost; what is unsent at the end, `sync` sends later. What is already there is
asked of the server itself, so sending again (after a crash, on resume, by `sync`) changes nothing.
"""

from ctr.tracking.silent import SilentTracker
from ctr.tracking.tracker import Tracker, sync

__all__ = ["SilentTracker", "Tracker", "sync"]
