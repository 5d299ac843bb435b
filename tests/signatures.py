"""What moto leaves out: the check of signatures, as S3 makes it, with botocore's own computation of them."""

from __future__ import annotations

import base64
import hashlib
import time
from calendar import timegm
from urllib.parse import parse_qs, urlsplit

from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from buckets import ACCESS_KEY, SECRET_KEY


class SignatureGate:
    """The gate of a `buckets.Proxy`: passes requests that are signed with the bucket's key, and no others.

    `clock_s` is how far the bucket's clock is before this machine's. `refused` has a line for each refused request,
    `by_url` the first line of each that was passed by its URL.
    """

    def __init__(self) -> None:
        self.clock_s = 0.0
        self.refused: list[str] = []
        self.by_url: list[str] = []

    def __call__(self, head: bytes, body: bytes) -> bytes:
        first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        method, target, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        query = {name: values[0] for name, values in parse_qs(urlsplit(target).query).items()}
        why = self._problem(method, target, query, headers, body)
        if not why:
            if "X-Amz-Signature" in query:
                self.by_url.append(first)
            return b""
        self.refused.append(f"{method} {urlsplit(target).path}: {why}")
        said = f"<Error><Code>{why.partition(':')[0]}</Code><Message>{why.partition(':')[2]}</Message></Error>".encode()
        return b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n%b" % (len(said), said)

    def _problem(self, method: str, target: str, query: dict[str, str], headers: dict[str, str], body: bytes) -> str:
        if "X-Amz-Signature" not in query:
            return (
                "" if f"Credential={ACCESS_KEY}/" in headers.get("authorization", "") else "AccessDenied:no signature"
            )
        signed_at = timegm(time.strptime(query["X-Amz-Date"], "%Y%m%dT%H%M%SZ"))
        age_s = time.time() + self.clock_s - signed_at
        if age_s > int(query["X-Amz-Expires"]):
            return "AccessDenied:Request has expired"
        if age_s < -900:
            return "AccessDenied:Request is not yet valid"
        names = query["X-Amz-SignedHeaders"].split(";")
        if any(name not in headers for name in names):
            return "AccessDenied:a signed header is missing"
        if any(name.startswith("x-amz-") and name not in names for name in headers):
            return "AccessDenied:a header is not signed"
        bare = "&".join(each for each in urlsplit(target).query.split("&") if not each.startswith("X-Amz-Signature="))
        request = AWSRequest(
            method,
            f"http://{headers['host']}{urlsplit(target).path}?{bare}",
            headers={name: headers[name] for name in names if name != "host"},
        )
        request.context["timestamp"] = query["X-Amz-Date"]
        auth = S3SigV4QueryAuth(Credentials(ACCESS_KEY, SECRET_KEY), "s3", "us-east-1")
        if (
            auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
            != query["X-Amz-Signature"]
        ):
            return "SignatureDoesNotMatch:of another request"
        digest = headers.get("x-amz-checksum-sha256")
        if digest and base64.b64encode(hashlib.sha256(body).digest()).decode() != digest:
            return "BadDigest:other bytes"
        return ""
