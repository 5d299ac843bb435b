"""What a site writes as its wish for signed URLs, and what a coordinator answers to one."""

from __future__ import annotations

from flavor.errors import DamagedRecord
from flavor.records.signed_urls import SignedUrl, UrlAnswer, UrlUse, UrlWish
from flavor.store.url_rights import occasion_of, refusal_of

GOOD_WISH = UrlWish("0" * 16, UrlUse.PARTS, "runs/r/clients/a/0001-update-abab.bin", 2**25, "ab" * 32, "upload", (1, 2))
GOOD_ANSWER = UrlAnswer(
    "0" * 16, (SignedUrl("https://h/x?y", {"If-None-Match": "*"}),), 60, upload="u", part_bytes=5, done=((1, 3), (5, 5))
)


def fuzz_wish(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    wish = UrlWish.parse(text)
    if wish is not None:
        assert UrlWish.parse(wish.to_text()) == wish
        refusal_of(wish, "r", "a", most_update_bytes=None, shares_names=True)
        assert occasion_of(wish, "r", "a") is None or wish.path.startswith("runs/r/clients/a/")
    try:
        answer = UrlAnswer.parse(text)
    except DamagedRecord:
        return
    assert UrlAnswer.parse(answer.to_text()) == answer
    answer.parts_done()
