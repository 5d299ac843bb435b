"""Aggregation: n clients' models to one, as *reduce, then server step*, with numpy alone.

Knows neither Redis nor files: it takes arrays, which may be mapped files, and writes arrays, which may be
such files too.
"""

from aggregators.engine import Aggregation, run
from aggregators.models import check_compatible
from aggregators.state import ServerState

__all__ = ["Aggregation", "ServerState", "check_compatible", "run"]
