"""What a bucket must allow a site, as the policy that its service takes."""

from __future__ import annotations

import re
from typing import Any

from flavor.errors import InvalidSetting
from flavor.store.paths import client_folder, global_folder, manifests_folder, run_record_path

_PLAIN = re.compile(r"[A-Za-z0-9._/-]+")


def site_policy(url: str, run: str, site: str, *, records: bool = False) -> dict[str, Any]:
    """The IAM policy of a site in `s3://BUCKET/PREFIX`: it reads global models, and writes its own folder.

    Each resource has a fixed beginning that is this site's or the run's alone, because `*` in a policy matches slashes,
    too. With `records` it also reads the run's record and manifests, which name all sites. Raises `InvalidSetting`.
    """
    scheme, _, place = url.partition("://")
    if scheme in ("gs", "az"):
        raise InvalidSetting(f"{url}: {_ELSEWHERE[scheme]}")
    if scheme != "s3":
        raise InvalidSetting(
            f"{url}: a folder has no policy: whoever may write to it may change all of it; give s3://BUCKET/PREFIX"
        )
    if not _PLAIN.fullmatch(place):
        raise InvalidSetting(f"{url}: only letters, digits, '.', '_', '-' and '/' mean themselves in a policy")
    base = f"arn:aws:s3:::{place.rstrip('/')}/"
    own, read = client_folder(run, site), [f"{global_folder(run)}*"]
    if records:
        read += [run_record_path(run), f"{manifests_folder(run)}round-*"]
    return {
        "Version": "2012-10-17",
        "Statement": [
            _allow("ReadGlobalModels", ["s3:GetObject"], [base + path for path in read]),
            _allow("HandIn", [*_HANDS_IN], [f"{base}{own}*"]),
            _allow("TidyUploads", ["s3:DeleteObject"], [f"{base}{own}.*"]),  # hidden names, on their way
        ],
    }


_HANDS_IN = ("s3:PutObject", "s3:GetObject", "s3:ListMultipartUploadParts", "s3:AbortMultipartUpload")
"""An upload in parts goes on where it was, or is ended."""


def _allow(name: str, actions: list[str], resources: list[str]) -> dict[str, Any]:
    return {"Sid": name, "Effect": "Allow", "Action": actions, "Resource": resources}


_ELSEWHERE = {
    "gs": "Google Cloud takes conditions on names: give the site's account roles/storage.objectViewer where "
    "resource.name.startsWith('projects/_/buckets/BUCKET/objects/PREFIX/runs/RUN/global/'), and "
    "roles/storage.objectUser where it starts with '…/runs/RUN/clients/SITE/'",
    "az": "Azure takes conditions on paths: give the site's identity Storage Blob Data Reader where the blob path is "
    "like 'PREFIX/runs/RUN/global/*', and Storage Blob Data Contributor where it is "
    "like 'PREFIX/runs/RUN/clients/SITE/*'",
}
