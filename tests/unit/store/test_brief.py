"""A store for one look: it is asked once, and what it then does not answer is not waited for again."""

from __future__ import annotations

import socket

import pytest

from flavor.errors import StoreUnavailable
from flavor.store.brief import BriefStore
from flavor.store.open import open_store
from flavor.store.settings import Endurance

PATH = "runs/r/global/0001-info.json"


def test_a_store_that_does_not_answer_is_asked_once(monkeypatch):
    pytest.importorskip("obstore")
    with socket.create_server(("127.0.0.1", 0)) as listener:  # takes connections, and says nothing
        for name, value in {"ENDPOINT": f"http://127.0.0.1:{listener.getsockname()[1]}", "REGION": "us-east-1"}.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        brief = BriefStore("s3://bucket/flavor", endurance=Endurance(0.1, 0.3, 0.3))
        with pytest.raises(StoreUnavailable) as first:
            brief.store.local(PATH)
    for ask in (brief.store.local, brief.store.exists):
        with pytest.raises(StoreUnavailable) as again:
            ask(PATH)
        assert again.value is first.value is brief.silent


def test_what_is_not_there_is_no_silence(tmp_path):
    open_store(str(tmp_path), create=True)
    brief = BriefStore(str(tmp_path))
    assert not brief.store.exists(PATH)
    assert brief.silent is None
    assert brief.store.url == f"file://{tmp_path}"
