"""What a page shows of a run beside its document: one client, and the settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flavor.config import RunConfig
from flavor.evaluation_settings import FINAL, mode_of
from flavor.records.damage import damage_in, number, table
from flavor.results.rounds import for_people_of_site
from flavor.setting import Setting
from flavor.view.document import Document
from flavor.view.followed import Followed

_MOST_ROUNDS = 50
_MOST_EVENTS = 100
_SPREAD = ("mean", "lowest", "highest", "rounds")


def client_of(followed: Followed, client: str, document: Document) -> Document:
    """Return what is known of one client; `flavor.view.board.Board.client` lists the keys."""
    rounds = [
        {
            "round": round_,
            "outcome": of_client.outcome.value,
            "task_round": of_client.task_round,
            "staleness": of_client.staleness,
            "reason": of_client.reason,
            "examples": of_client.examples,
            "bytes": of_client.bytes,
            "sent_bytes": of_client.sent_bytes,
            "received_bytes": of_client.received_bytes,
            "metrics": for_people_of_site(of_client.metrics),
            "phases": [[span.doing.value, span.start_ms, span.end_ms] for span in of_client.phases],
        }
        for round_, of_client in reversed(followed.history.client(client, _MOST_ROUNDS))
    ]
    return {
        "client": client,
        "row": document["clients"][client],
        "rounds": rounds,
        "events": followed.log.before("", _MOST_EVENTS, client),
        "log": followed.runs.shared_log(client),
    }


def contributions_of(followed: Followed) -> Document:
    """Return the newest result about a run's sites; `flavor.view.board.Board.contributions` lists the keys."""
    runs = followed.runs
    text = runs.contributions(runs.read().run_id)
    if not text:
        return {"result": None}
    with runs.damage_at(runs.keys.contributions), damage_in("result of flavor contributions"):
        found = table(text)
        return {
            "result": {
                "at_ms": number(str(found["at_ms"])),
                "metric": None if found["metric"] is None else str(found["metric"]),
                "by_sites": bool(found.get("by_sites")),
                "rounds": [number(str(each)) for each in found["rounds"]],
                "lacking": {str(round_): str(why) for round_, why in found["lacking"].items()},
                "left_out": number(str(found["left_out"])),
                "sites": [_of_site(site) for site in found["sites"]],
            }
        }


def _of_site(site: Mapping[str, Any]) -> Document:
    return {
        **{name: str(site[name]) for name in ("client", "why_not")},
        **{name: number(str(site[name])) for name in ("rounds", "num_examples")},
        **{
            name: _spread(site.get(name))  # an earlier release has written no `with_it`
            for name in ("cosine", "norm_ratio", "with_it", "without", "contribution")
        },
        "judges": {str(judge): _spread(of) for judge, of in site.get("judges", {}).items()},
    }


def _spread(found: Mapping[str, Any] | None) -> Document | None:
    return None if found is None else {each: float(str(found[each])) for each in _SPREAD}


def settings_of(followed: Followed) -> Document:
    """Return a run's settings; `flavor.view.board.Board.settings` lists the keys.

    Which models are judged is told as it is: other settings decide where `--evaluate` says nothing.
    """
    view = followed.runs.read()
    config = RunConfig.known(view.config)
    values = config.every_setting() | {"evaluate": mode_of(config)}
    defaults = {"evaluate": FINAL}
    rows = []
    for name, field in RunConfig.model_fields.items():
        about = Setting.of(field)
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        default = defaults.get(name, default)
        rows.append(
            {
                "name": name,
                "value": values[name],
                "default": list(default) if isinstance(default, tuple) else default,
                "help": about.help,
                "group": about.group.value,
                "may_change": about.may_change,
            }
        )
    return {"settings": rows, "changed": list(view.changed), "run_id": view.run_id, "protocol": view.protocol}
