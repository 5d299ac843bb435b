"""The matrix of `flavor evaluate --cross`."""

from __future__ import annotations

import json

from flavor.cli.cross import Crossed
from flavor.results.evaluated import Evaluated
from flavor.results.evaluated_table import described
from flavor.results.site_measures import SiteMeasures


def judged(**accuracies: float) -> Evaluated:
    sites = {site: SiteMeasures(10, {"accuracy": value}) for site, value in accuracies.items()}
    return Evaluated("r", 8, 1, "", 0, 1, tuple(sites), sites, {})


def test_a_site_has_no_name_that_takes_the_place_of_the_rounds_model():
    models = {"global": judged(s2=0.2), "global model": judged(s2=0.3)}
    crossed = Crossed(8, judged(**{"global": 0.1, "s2": 0.5}), models, {})
    name, heads, rows = crossed.table(None)
    assert (name, heads) == ("accuracy", ["JUDGE", "global model", "global", "global model"])
    assert rows == [["global", "0.1", "-", "-"], ["s2", "0.5", "0.2", "0.3"]]
    plain = json.loads(json.dumps(crossed.described(described)))
    assert plain["global"]["sites"]["s2"]["metrics"] == {"accuracy": 0.5}
    assert plain["models"]["global"]["sites"]["s2"]["metrics"] == {"accuracy": 0.2}
