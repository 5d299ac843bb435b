"""Helm itself installs, upgrades and uninstalls the chart: what stays, what is another one, and what goes."""

from __future__ import annotations

import base64
import copy
from typing import Any

import pytest
from cryptography import x509

from tests import charts, kubeapi

VALUES: dict[str, Any] = {
    "store": {"claim": {"create": True}},
    "runs": {"digits": {"rounds": 3}, "second": {"rounds": 3}},
}
TLS = "Secret/demo-flavor-redis-tls"


def named(objects: dict[str, Any], kind: str) -> set[str]:
    return {name for name in objects if name.startswith(f"{kind}/")}


@charts.needs_helm
@pytest.mark.timeout(180)
def test_an_upgrade_keeps_secrets_and_replaces_the_jobs_that_changed() -> None:
    upgraded, reached = copy.deepcopy(VALUES), copy.deepcopy(VALUES)
    upgraded["runs"]["digits"]["rounds"] = 4
    reached["runs"].pop("second")
    reached["redis"] = {"tls": {"hosts": ["redis.example.org", "10.1.2.3"]}}
    first, same, changed, third, last = kubeapi.after(
        [("install", VALUES), ("upgrade", VALUES), ("upgrade", upgraded), ("upgrade", reached), ("uninstall", {})]
    )
    secrets = {name: first[name]["data"] for name in named(first, "Secret")}
    assert len(secrets) == 4
    assert all(value for data in secrets.values() for value in data.values())
    assert first == same, "an upgrade without a change changes nothing"

    # another number of rounds is another Job; the one that did not change stays, and so do all Secrets
    assert {name: changed[name]["data"] for name in secrets} == secrets
    assert len(named(first, "Job") & named(changed, "Job")) == 1
    assert len(named(changed, "Job")) == 2
    assert {name for name in named(first, "Job") & named(changed, "Job") if "second" in name}

    # other names of Redis: another certificate of the same CA, which the sites' tokens have
    assert len(named(third, "Job")) == 1
    assert {name: third[name]["data"] for name in secrets if name != TLS} == {
        name: data for name, data in secrets.items() if name != TLS
    }
    before, now = (
        {key: base64.b64decode(value) for key, value in found[TLS]["data"].items()} for found in (first, third)
    )
    assert (now["ca.pem"], now["ca.key"]) == (before["ca.pem"], before["ca.key"])
    certificate = x509.load_pem_x509_certificate(now["server.pem"])
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(now["ca.pem"]))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {"demo-flavor-redis.fl.svc", "redis.example.org"} <= set(names.get_values_for_type(x509.DNSName))
    assert "10.1.2.3" in {str(each) for each in names.get_values_for_type(x509.IPAddress)}
    pods = [each["StatefulSet/demo-flavor-redis"]["spec"]["template"]["metadata"] for each in (first, third)]
    assert pods[0] != pods[1], "Redis is started again with its new certificate"

    # what cannot be made again stays
    assert set(last) == {*secrets, "PersistentVolumeClaim/demo-flavor-store"}
