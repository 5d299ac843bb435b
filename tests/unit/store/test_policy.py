"""What a site's policy allows, by the meaning that IAM gives its patterns: `*` matches slashes, too."""

from __future__ import annotations

import json
import re

import pytest
from click.testing import CliRunner

from flavor.cli.main import cli
from flavor.errors import InvalidSetting
from flavor.store.bucket import failure
from flavor.store.paths import (
    accepted_path,
    client_folder,
    global_prefix,
    manifest_path,
    run_record_path,
    staged_manifest_prefix,
    update_prefix,
)
from flavor.store.policy import site_policy

URL = "s3://federation/prod"


def matches(pattern: str, text: str) -> bool:
    """As IAM matches: `*` is any text, slashes included, `?` any one character."""
    expression = "".join(".*" if c == "*" else "." if c == "?" else re.escape(c) for c in pattern)
    return re.fullmatch(expression, text, re.DOTALL) is not None


def may(policy: dict, action: str, path: str) -> bool:
    resource = f"arn:aws:s3:::federation/prod/{path}"
    return any(
        any(matches(allowed, action) for allowed in statement["Action"])
        and any(matches(allowed, resource) for allowed in statement["Resource"])
        for statement in policy["Statement"]
    )


def test_a_site_writes_its_own_folder_and_reads_global_models() -> None:
    policy = site_policy(URL, "mammo", "site-1")
    own = f"{update_prefix('mammo', 7, 'site-1')}update-x.safetensors"
    assert may(policy, "s3:PutObject", own)
    assert may(policy, "s3:GetObject", own)
    assert may(policy, "s3:GetObject", f"{global_prefix('mammo', 0)}model-x.safetensors")
    hidden = f"{client_folder('mammo', 'site-1')}.0007-update-x.safetensors.ab12"
    assert may(policy, "s3:PutObject", hidden)
    assert may(policy, "s3:ListMultipartUploadParts", hidden), "an upload goes on where it was"
    assert may(policy, "s3:DeleteObject", hidden)
    assert not may(policy, "s3:DeleteObject", own), "what was handed in stays"


@pytest.mark.parametrize(
    "path",
    [
        f"{update_prefix('mammo', 7, 'site-2')}update-x.safetensors",
        f"{update_prefix('mammo', 7, 'site-10')}update-x.safetensors",
        f"{update_prefix('other', 7, 'site-1')}update-x.safetensors",
        "runs/other/rounds/1/clients/site-1/x",
        "runs/mammo/clients/site-2/clients/site-1/x",
        "runs/x/runs/mammo/clients/site-1/x",
        accepted_path(f"{update_prefix('mammo', 7, 'site-1')}update-x.safetensors"),
        f"{global_prefix('other', 1)}model-x.safetensors",
        run_record_path("mammo"),
        manifest_path("mammo", 1),
        f"{staged_manifest_prefix('mammo', 1)}-x.json",
        "",
    ],
)
def test_nothing_else_is_allowed(path: str) -> None:
    policy = site_policy(URL, "mammo", "site-1")
    for action in ("s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:ListBucket", "s3:PutObjectAcl"):
        assert not may(policy, action, path)


def test_global_models_are_read_and_not_written() -> None:
    policy = site_policy(URL, "mammo", "site-1")
    path = f"{global_prefix('mammo', 3)}model-x.safetensors"
    assert not any(may(policy, action, path) for action in ("s3:PutObject", "s3:DeleteObject"))


def test_who_trusts_a_key_reads_the_records() -> None:
    policy = site_policy(URL, "mammo", "site-1", records=True)
    assert may(policy, "s3:GetObject", run_record_path("mammo"))
    assert may(policy, "s3:GetObject", manifest_path("mammo", 12))
    assert not may(policy, "s3:PutObject", manifest_path("mammo", 12))
    assert not may(policy, "s3:GetObject", manifest_path("other", 12))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("/mnt/flavor", "a folder has no policy"),
        ("gs://b/p", "roles/storage.objectViewer"),
        ("az://c/p", "Storage Blob Data Reader"),
        ("s3://b/*", "mean themselves"),
    ],
)
def test_other_stores_are_told_what_to_do(url: str, said: str) -> None:
    with pytest.raises(InvalidSetting, match=re.escape(said)):
        site_policy(url, "mammo", "site-1")
    with pytest.raises(InvalidSetting):
        site_policy(URL, "mammo", "*")


def test_the_command_prints_it() -> None:
    done = CliRunner().invoke(cli, ["store", "policy", "mammo", "site-1", "--store", URL])
    assert done.exit_code == 0
    assert json.loads(done.stdout) == site_policy(URL, "mammo", "site-1")


def test_a_refusal_for_a_wrong_clock_names_the_clock():
    said = str(failure("s3://b", "key", "", status=403, code="RequestTimeTooSkewed"))
    assert "answered 403 (RequestTimeTooSkewed)" in said
    assert "set the clock" in said
    assert "credentials" not in said
    assert "answered 403 (AccessDenied): it does not let us in" in str(
        failure("s3://b", "key", "", status=403, code="AccessDenied")
    )
