"""The IAM policy that gives a site the rights it needs in a bucket."""

from __future__ import annotations

import re
from typing import Any

from flavor.errors import InvalidSetting
from flavor.store.paths import client_folder, global_folder, manifests_folder, run_record_path

_PLAIN = re.compile(r"[A-Za-z0-9._/-]+")


def site_policy(url: str, run: str, site: str, *, records: bool = False) -> dict[str, Any]:
    """Return the IAM policy of a site in `s3://BUCKET/PREFIX`: it reads global models, and writes its own folder.

    Each resource begins with a prefix of this site or of this run alone, because `*` in a policy also matches slashes.
    With `records`, the site also reads the run's record and manifests, which name all sites. Raises `InvalidSetting`.
    """
    scheme, _, place = url.partition("://")
    if scheme in ("gs", "az"):
        raise InvalidSetting(f"{url}: {_ELSEWHERE[scheme]}")
    if scheme != "s3":
        raise InvalidSetting(
            f"{url}: a folder has no policy: each user who may write to it may change all of it; give s3://BUCKET/PREFIX"
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
            _allow("TidyUploads", ["s3:DeleteObject"], [f"{base}{own}.*"]),  # names of unfinished uploads
        ],
    }


_HANDS_IN = ("s3:PutObject", "s3:GetObject", "s3:ListMultipartUploadParts", "s3:AbortMultipartUpload")
"""Rights to go on with an upload in parts, and to end it."""


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
