"""What a site's user was sent as a join token, by mail or in a file."""

from __future__ import annotations

import base64

from pydantic import SecretStr

from flavor.bus.token import JoinToken
from flavor.errors import InvalidSetting

GOOD_TOKEN = JoinToken(
    url="rediss://bus.example:6379/2", user="flavor:r:a", secret=SecretStr("s3cr3t"), run="r", client="a", store="/mnt"
)


def fuzz_token(data: bytes) -> None:
    word = "flavor-join:" + base64.urlsafe_b64encode(data).decode().rstrip("=")
    try:
        token = JoinToken.parse(word)
    except InvalidSetting as error:
        told = str(error)
    else:
        told = ""
        assert JoinToken.parse(token.encode()) == token
    assert told == "" or told.isprintable(), repr(told)
    assert len(told) < 500, told
