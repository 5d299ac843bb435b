"""Single requests to an S3 bucket: botocore makes and signs them, and `flavor.store.wire` sends them.

obstore limits the time of each body, and gives no way to the single requests of an upload in parts.
"""

from __future__ import annotations

import contextlib
import io
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

from flavor.errors import InvalidSetting, ObjectExists, ObjectMissing
from flavor.store.bucket import Bucket, already_there, failure, no_credentials, unanswered
from flavor.store.wire import Pace, Silence, wire_of
from flavor.watch import Watch, current_watch, watched


class S3Requests:
    """Sends single requests to one bucket."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        _, _, rest = bucket.url.partition("://")
        self._name, _, self._prefix = rest.partition("/")
        self._wire = wire_of(bucket.endurance)
        self._lock = threading.Lock()
        self._made: Any = None

    @property
    def pace(self) -> Pace:
        """The measured speed of the link to the bucket."""
        return self._wire.pace

    def again(self, key: str, operation: str, **words: Any) -> Any:
        """Send a request about this object, again while the bucket does not answer; return botocore's answer."""
        answers: list[Any] = []
        self._bucket.persist(key, lambda: answers.append(self.ask(operation, key, **words)))
        return answers[-1]

    def ask(self, operation: str, key: str, *, watch: Watch | None = None, **words: Any) -> Any:
        """Send a request about this object once; return botocore's answer. Raises `StoreError`."""
        with watched(watch or current_watch()), self._translated(key):
            return getattr(self._client(), operation)(Bucket=self._name, Key=self.full(key), **words)

    def uploads(self, prefix: str) -> Iterator[tuple[str, str]]:
        """Yield each unfinished upload in parts whose object's path starts with `prefix`: the path, and its id."""
        marks: dict[str, str] = {}
        while True:
            with self._translated(prefix):
                answer = self._client().list_multipart_uploads(Bucket=self._name, Prefix=self.full(prefix), **marks)
            for each in answer.get("Uploads", ()):
                yield each["Key"].removeprefix(self.full("")), each["UploadId"]
            if not answer.get("IsTruncated"):
                return
            marks = {"KeyMarker": answer["NextKeyMarker"], "UploadIdMarker": answer["NextUploadIdMarker"]}

    def parts(self, key: str, upload: str) -> Iterator[dict[str, Any]]:
        """Yield the parts of an upload that the bucket has, as it describes them. Raises `ObjectMissing`."""
        marker = 0
        while True:
            answer = self.again(key, "list_parts", UploadId=upload, PartNumberMarker=marker)
            yield from answer.get("Parts", ())
            if not answer.get("IsTruncated"):
                return
            marker = int(answer["NextPartNumberMarker"])

    def signed(self, operation: str, key: str, expires_s: int, **words: Any) -> str:
        """Return a URL with which this one request can be sent, until it expires. Sends nothing."""
        with self._translated(key):
            params = {"Bucket": self._name, "Key": self.full(key), **words}
            url: str = self._client().generate_presigned_url(operation, Params=params, ExpiresIn=expires_s)
            return url

    def full(self, key: str) -> str:
        """Return the key in the bucket of the object with this path in the store."""
        return f"{self._prefix}/{key}".lstrip("/")

    @contextlib.contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

        try:
            yield
        except Silence as error:
            raise unanswered(self._bucket.url, key, error) from None
        except NoCredentialsError:
            raise no_credentials(self._bucket.url) from None
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
            if status == 412 or code == "PreconditionFailed":
                raise ObjectExists(already_there(key)) from None
            if code in ("NoSuchUpload", "NoSuchKey", "404"):  # the last where a head was asked for
                raise ObjectMissing(f"{key}: the store {self._bucket.url} knows no such upload") from None
            raise failure(self._bucket.url, key, "", status=status, code=code) from None
        except BotoCoreError as error:
            raise failure(self._bucket.url, key, str(error)) from None

    def _client(self) -> Any:
        with self._lock:
            if self._made is None:
                self._made = _client(self._carry)
            return self._made

    def _carry(self, request: Any, **_: Any) -> Any:
        """Send a request that botocore has signed, and answer as botocore's own sender does."""
        from botocore.awsrequest import AWSResponse

        body = request.body
        data = body if isinstance(body, bytes | bytearray) else (body.read() if body is not None else b"")
        headers = {name: _text(value) for name, value in request.headers.items()}
        answer = self._wire.send(request.method, request.url, headers, memoryview(data), current_watch())
        return AWSResponse(request.url, answer.status, dict(answer.headers), _Content(answer.content))


class _Content(io.BytesIO):
    """Yield the body, as urllib3 does."""

    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self.read()


def _text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _client(carry: Callable[..., Any]) -> Any:
    """Make botocore's client from the environment variables that obstore reads."""
    try:
        import botocore.config
        import botocore.session
        from botocore import UNSIGNED
    except ImportError:
        raise InvalidSetting(
            "uploads to a bucket need a library that is not installed: pip install '.[s3]' in flavor's folder"
        ) from None

    def chosen(*names: str) -> str | None:
        return next((os.environ[name] for name in names if os.environ.get(name)), None)

    endpoint = chosen("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
    virtual = (chosen("AWS_VIRTUAL_HOSTED_STYLE_REQUEST") or "").lower() in ("1", "true", "yes", "on")
    signature = UNSIGNED if chosen("AWS_SKIP_SIGNATURE") else "s3v4"  # without it, URLs are signed in an older way
    client = botocore.session.get_session().create_client(
        "s3",
        region_name=chosen("AWS_REGION", "AWS_DEFAULT_REGION") or "us-east-1",
        endpoint_url=endpoint,
        config=botocore.config.Config(
            s3={"addressing_style": "virtual" if virtual else "path"},
            retries={"total_max_attempts": 1, "mode": "standard"},  # `Bucket.persist` tries again
            request_checksum_calculation="when_required",  # services other than Amazon's lack the newer ones
            response_checksum_validation="when_required",
            signature_version=signature,
        ),
    )
    client.meta.events.register("before-send.s3", carry)
    return client
