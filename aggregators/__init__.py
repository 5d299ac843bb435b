"""Aggregation: n clients' models to one, as *reduce, then server step*, with numpy alone.

Knows no Redis. The engine takes arrays, which may be mapped files, and writes arrays, which may be such files too;
`aggregate` takes and writes checkpoint files as well.
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
