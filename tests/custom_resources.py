"""Schemas of the manifests that Kubernetes itself does not know, with the fields that the charts use.

Written after the documents of KEDA 2.12 to 2.20 and of the Prometheus operator 0.70 and later. A field that is not here
is an error, also where the real definition has it: look it up, and add it.
"""

from __future__ import annotations

from typing import Any

TEXT, NUMBER, FLAG = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "boolean"}


def fields(needed: str = "", **known: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "required": needed.split(), "properties": known}


def listed(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "items": item}


def resource(version: str, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    return fields(
        "apiVersion kind metadata spec",
        apiVersion={"const": version},
        kind={"const": kind},
        metadata=fields("name namespace labels", name=TEXT, namespace=TEXT, labels={"type": "object"}),
        spec=spec,
    )


_REDIS = fields(
    "address listName listLength",
    address=TEXT,
    username=TEXT,
    databaseIndex=TEXT,
    enableTLS={"enum": ["true", "false"]},
    listName=TEXT,
    listLength=TEXT,
)
_MODIFIERS = fields(
    "formula target",
    formula=TEXT,
    target=TEXT,
    activationTarget=TEXT,
    metricType={"enum": ["AverageValue", "Value"]},
)
CUSTOM: dict[str, dict[str, Any]] = {
    "ScaledObject": resource(
        "keda.sh/v1alpha1",
        "ScaledObject",
        fields(
            "scaleTargetRef triggers",
            scaleTargetRef=fields("name", name=TEXT),
            minReplicaCount=NUMBER,
            maxReplicaCount=NUMBER,
            pollingInterval=NUMBER,
            cooldownPeriod=NUMBER,
            advanced=fields(scalingModifiers=_MODIFIERS),
            triggers=listed(
                fields(
                    "type metadata name",
                    type={"const": "redis"},
                    name=TEXT,
                    metadata=_REDIS,
                    authenticationRef=fields("name", name=TEXT),
                )
            ),
        ),
    ),
    "TriggerAuthentication": resource(
        "keda.sh/v1alpha1",
        "TriggerAuthentication",
        fields(secretTargetRef=listed(fields("parameter name key", parameter=TEXT, name=TEXT, key=TEXT))),
    ),
    "ServiceMonitor": resource(
        "monitoring.coreos.com/v1",
        "ServiceMonitor",
        fields(
            "selector endpoints",
            jobLabel=TEXT,
            selector=fields(matchLabels={"type": "object"}),
            endpoints=listed(
                fields(
                    port=TEXT,
                    path=TEXT,
                    interval=TEXT,
                    honorLabels=FLAG,
                    authorization=fields(type=TEXT, credentials=fields("name key", name=TEXT, key=TEXT)),
                )
            ),
        ),
    ),
}
