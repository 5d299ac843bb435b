"""Grant a site's wish for signed URLs: the answer to a wish that was found to be the site's to make."""

from __future__ import annotations

from flavor.errors import ObjectMissing
from flavor.records.signed_urls import PARTS_AT_ONCE, UrlAnswer, UrlUse, UrlWish, series_of, sizes_of_parts
from flavor.store.signer import Signer, part_bytes_of


def granted(signer: Signer, wish: UrlWish, expires_s: int) -> UrlAnswer:
    """Return the answer to a wish. Only what is written in parts asks the bucket. Raises `StoreError`."""
    path, size, id_ = wish.path, wish.size_bytes, wish.id
    if wish.use is UrlUse.GET:
        return UrlAnswer(id_, (signer.get(path, expires_s),), expires_s)
    if wish.use is UrlUse.PUT or (wish.use is UrlUse.BEGIN and not signer.has_parts):
        return UrlAnswer(id_, (signer.put(path, size, wish.digest, expires_s),), expires_s)
    part_bytes = part_bytes_of(size)
    if wish.use is UrlUse.PARTS:
        urls = signer.parts(path, wish.upload, wish.parts, size, expires_s)
        return UrlAnswer(id_, tuple(urls), expires_s, upload=wish.upload, part_bytes=part_bytes)
    if wish.use is UrlUse.COMPLETE:
        try:
            kept = signer.complete(path, wish.upload, size)
        except ObjectMissing:  # the site begins again
            return UrlAnswer(id_)
        if kept is None:
            return UrlAnswer(id_, is_complete=True)
        return UrlAnswer(id_, upload=wish.upload, part_bytes=part_bytes, done=series_of(kept))
    upload, done = signer.begin(path, size)
    missing = [number for number in range(1, len(sizes_of_parts(size, part_bytes)) + 1) if number not in done]
    urls = signer.parts(path, upload, missing[:PARTS_AT_ONCE], size, expires_s)
    return UrlAnswer(id_, tuple(urls), expires_s, upload=upload, part_bytes=part_bytes, done=series_of(done))
