"""A store's certificate that is refused: why, what to do, and whether that can pass by itself."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass

_UNTRUSTED = (
    "name its CA, and the others that this machine needs, in the file of SSL_CERT_FILE (and of AWS_CA_BUNDLE, where "
    "that is set); where a proxy opens TLS, name the CA of the proxy"
)
_OUTDATED = "have it renewed, or check this machine's clock"
_WRONG_HOST = "use the host name that the certificate is for, or have it issued for this one"
_OF_OPENSSL = {
    **dict.fromkeys((9, 10), _OUTDATED),
    **dict.fromkeys((18, 19, 20, 21), _UNTRUSTED),
    **dict.fromkeys((62, 64), _WRONG_HOST),
}
"""What to do, by OpenSSL's X509_V_ERR_*."""
_OF_OBSTORE = {
    "UnknownIssuer": ("unknown issuer", _UNTRUSTED),
    "Expired": ("certificate has expired", _OUTDATED),
    "NotValidYet": ("certificate is not yet valid", _OUTDATED),
    "NotValidForName": ("it is not for this host name", _WRONG_HOST),
}
"""What to say and to do, by the beginning of what obstore calls it."""


@dataclass(frozen=True)
class Refusal:
    """Why this machine refuses a certificate."""

    said: str
    advice: str

    @property
    def passing(self) -> bool:
        """Whether it may be right later without a change here: those who run the store renew a certificate."""
        return self.advice == _OUTDATED

    def __str__(self) -> str:
        return f"its certificate is refused ({self.said}): {self.advice}"

    @classmethod
    def of(cls, error: Exception) -> Refusal | None:
        """Return the refusal in an error of Python's `ssl`; None for another error."""
        if not isinstance(error, ssl.SSLCertVerificationError):
            return None
        return cls(error.verify_message.rstrip("."), _OF_OPENSSL.get(error.verify_code, "have it put right"))

    @classmethod
    def in_text(cls, text: str) -> Refusal | None:
        """Return the refusal in the text of an error of obstore's; None where there is none."""
        if (found := re.search(r"InvalidCertificate\(\s*(\w{1,60})", text)) is None:
            return None
        for name, (said, advice) in _OF_OBSTORE.items():
            if found[1].startswith(name):
                return cls(said, advice)
        return cls(found[1], "have it put right")
