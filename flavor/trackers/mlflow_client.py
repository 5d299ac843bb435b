"""The client of MLflow, made quiet and brief, whose errors are translated where they enter."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from flavor.errors import InvalidSetting, TrackerUnavailable
from flavor.printable import printable

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

OPTION = "--to mlflow"
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # flavor sends nothing to others by itself
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # else a server that is away is waited for, for minutes, without a word
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""What the library reads from the environment, unless the user has set it."""
_ANSWER_S = 10.0
_PASSING = ("TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "INTERNAL_ERROR", "DEADLINE_EXCEEDED", "ABORTED")
_WHY = {
    "Connection refused": "it refuses the connection",
    "timed out": "it does not answer",
    "Name or service not known": "its name is not known",
    "NameResolutionError": "its name is not known",
    "Supported URI schemes": "the scheme of the URI is none of http, https, sqlite and the others that MLflow takes",
    "maintenance mode": "MLflow does not keep runs in folders any more: name a server, or sqlite:///FILE",
    "CERTIFICATE_VERIFY_FAILED": "its certificate cannot be verified: MLFLOW_TRACKING_SERVER_CERT_PATH names a CA",
}
_REFUSED = re.compile(r"error code (401|403)")


def connected(uri: str) -> MlflowClient:
    """Return a client for this server. Raises `InvalidSetting` for a URI that cannot be used.

    A password in the URI is refused: every user of the machine can read it in the list of processes.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import requests.exceptions  # noqa: F401 - of the library, in `calling`
        from mlflow.tracking import MlflowClient
    except ImportError:
        raise InvalidSetting(
            f"{OPTION} needs a library that is not installed: pip install '.[mlflow]' in flavor's folder"
        ) from None
    for logger in ("mlflow", "alembic", "urllib3"):
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    try:
        parts = urlsplit(uri)
        is_secret, is_web = "@" in parts.netloc, parts.scheme in ("http", "https")
        if is_web and not parts.hostname:
            raise ValueError("it names no host")
        _ = parts.port
    except ValueError as error:
        raise InvalidSetting(f"{OPTION}: the URI cannot be used: {error}") from None
    if is_secret and is_web:
        raise InvalidSetting(
            f"{OPTION}: leave the user and the password out of the URI, where other users of this machine can read "
            "them: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    if is_web:
        _probe(uri)
    if not uri.strip():
        raise InvalidSetting(f"{OPTION}: the URI is empty: name a server, e.g. http://localhost:5000")
    with calling(uri):
        return MlflowClient(uri, registry_uri=uri)


def _probe(uri: str) -> None:
    """Raise `TrackerUnavailable` for a server that takes connections and answers nothing: the library waits longer."""
    import requests

    try:
        requests.get(f"{uri.rstrip('/')}/health", timeout=_ANSWER_S)
    except requests.exceptions.Timeout:
        raise TrackerUnavailable(
            f"MLflow at {shown(uri)} cannot be used: it does not answer within {_ANSWER_S:g} s"
        ) from None
    except requests.exceptions.RequestException:
        return  # the library's own request says what is wrong


@contextlib.contextmanager
def calling(uri: str) -> Iterator[None]:
    """Translate the errors of the library.

    Raises `TrackerUnavailable` for what may work later, and `InvalidSetting` for what the server refuses.
    """
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException

    try:
        yield
    except MlflowException as error:
        said, code = str(error), str(error.error_code)
        if refused := _REFUSED.search(said):
            raise InvalidSetting(
                f"{OPTION} {shown(uri)}: the server refuses this user (HTTP {refused[1]}): MLFLOW_TRACKING_USERNAME "
                "and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, name another"
            ) from None
        if code == "ENDPOINT_NOT_FOUND":
            raise InvalidSetting(
                f"{OPTION} {shown(uri)}: there is a server, and no MLflow under this address: check the URI"
            ) from None
        if code in _PASSING and "credential" not in said:
            raise TrackerUnavailable(f"MLflow at {shown(uri)} cannot be used: {_why(said)}") from None
        raise InvalidSetting(f"{OPTION} {shown(uri)}: {_why(said)}") from None
    except RequestException as error:
        raise TrackerUnavailable(f"MLflow at {shown(uri)} cannot be used: {_why(str(error))}") from None
    except (ImportError, ValueError) as error:  # a backend whose package is missing, or a URI that it cannot use
        if isinstance(error, InvalidSetting):
            raise
        raise InvalidSetting(f"{OPTION} {shown(uri)}: {_why(str(error))}") from None


def shown(uri: str) -> str:
    """Return a URI for people, without a password."""
    return printable(re.sub(r"//[^/@]*@", "//***@", uri)[:200])


def _why(said: str) -> str:
    for sign, why in _WHY.items():
        if sign in said:
            return why
    return printable(re.sub(r"//[^/@\s]*@", "//***@", " ".join(said.split()))[:300])
