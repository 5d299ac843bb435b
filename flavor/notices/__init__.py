"""Sends messages about a run to people: to a chat, by mail, to a webhook. The package `apprise` delivers them."""

from typing import Final

AFTER_S: Final = 900.0
"""Default of how long a run waits before a message says so. It stands here because the command line imports it."""
