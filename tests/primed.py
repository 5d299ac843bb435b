"""What the first call of a library prepares for all later ones: done once, where it is imported before forks."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from aggregators.catalogue import GROUP
from flavor.plugins import points
from flavor.records.names import count
from flavor.script_settings import checked_settings
from flavor.sizes import parse_size

Ed25519PrivateKey.generate().sign(b"")  # OpenSSL looks up its algorithms, and seeds itself anew after a fork
argparse.ArgumentParser()  # it has two regular expressions compiled, and so have the next three
checked_settings({"A": "1"})
count("1")
parse_size("1", "")
for kind in ([], (name for name in "")):  # click asks it about each command
    isinstance(kind, Mapping)  # a look at all subclasses, whose answer is kept
list(points(GROUP))  # the folders of installed packages, which are read again when they have changed
