"""What a bucket says of a signed URL that it refuses."""

from __future__ import annotations


def clock_fault(content: bytes) -> str:
    """Return what a bucket's refusal of a URL that was just signed says of the clock that dated it; '' for nothing."""
    text = content[:4096].decode("utf-8", "replace").lower()
    if any(word in text for word in _TIMES):
        return "it takes the time of the signature for a wrong one: set the clock of the machine that signs"
    return ""


_TIMES = ("requesttimetooskewed", "request has expired", "not yet valid", "specified time frame", "expiredtoken")
"""What the services say: S3 and MinIO, S3 of the future, Azure, Google."""


def code_in(content: bytes) -> str:
    """Return the code in a bucket's answer; '' where there is none."""
    code = content.partition(b"<Code>")[2].partition(b"</Code>")[0].decode("ascii", "replace")
    return code[:60] if code.isalnum() else ""
