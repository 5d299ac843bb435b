"""Sends messages about a run to people: to a chat, by mail, to a webhook. The package `apprise` delivers them."""
