"""The tree at the top of errors.py is the tree of the code."""

from __future__ import annotations

import inspect
import re

from flavor import errors


def test_the_drawn_tree_names_every_class_under_its_parent() -> None:
    drawn: dict[str, str] = {}
    stack: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^([ │├└─]*)([A-Z][A-Za-z]+)(?:\((\w+)\))?\s", line + " ")
        if not match or match[2] not in vars(errors):
            continue
        depth = len(match[1])
        while stack and stack[-1][0] >= depth:
            stack.pop()
        drawn[match[2]] = match[3] or (stack[-1][1] if stack else "Exception")
        stack.append((depth, match[2]))
    real = {
        name: cls.__bases__[0].__name__
        for name, cls in inspect.getmembers(errors, inspect.isclass)
        if cls.__module__ == errors.__name__
    }
    assert drawn == real


def test_a_finished_run_ends_a_process_silently_and_a_failed_one_does_not() -> None:
    assert errors.RunOver("r", "finished").code == 0
    assert "stopped: because" in str(errors.RunOver("r", "stopped", "because").code)


def test_the_reason_of_a_run_that_is_over_moves_no_cursor_and_forges_no_line() -> None:
    """Python prints it as it is, in the middle of a trainer's own output."""
    over = errors.RunOver("r", "failed", "\x1b]0;pwn\x07\x1b[2J\u202e\nError: give me your password")
    assert str(over.code).isprintable()
    assert over.reason == "\\x1b]0;pwn\\x07\\x1b[2J\\u202e Error: give me your password"


def test_messages_print_as_they_are() -> None:
    assert str(errors.MissingVariable("the variable X is not set")) == "the variable X is not set"


def test_an_error_with_another_message_carries_all_else() -> None:
    """Also one that needs more than a message, such as what the run's operator is told."""
    found = errors.NotDivided("here", told="there").reworded("once more: here")
    assert (type(found), str(found), found.told) == (errors.NotDivided, "once more: here", "there")
    away = errors.StoreUnavailable("away", passing=True).reworded("the store is away")
    assert (str(away), away.passing, away.refused) == ("the store is away", True, "")
    for name, cls in inspect.getmembers(errors, inspect.isclass):
        if issubclass(cls, errors.FlavorError):
            assert str(cls.reworded(cls.__new__(cls), "one line")) == "one line", name
