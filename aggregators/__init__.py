"""Aggregation of n clients' models to one: *reduce, then server step*, in numpy.

Needs neither Redis nor torch. Loads `ml_dtypes`, for bfloat16 and 8-bit floats, and `flavor.checkpoints`, for files.
The engine takes arrays and writes arrays; both may be mapped files. `aggregate` takes and writes checkpoint files too.
"""

from aggregators.algorithms import Algorithm
from aggregators.api import aggregate
from aggregators.engine import Aggregation, run
from aggregators.entry import Entry
from aggregators.models import check_compatible
from aggregators.registry import catalogue, parse, parse_server_step
from aggregators.state import ServerState

__all__ = [
    "Aggregation",
    "Algorithm",
    "Entry",
    "ServerState",
    "aggregate",
    "catalogue",
    "check_compatible",
    "parse",
    "parse_server_step",
    "run",
]
