# SPDX-License-Identifier: Apache-2.0
"""`Digest`: the content address of stored bytes.

Source: image-spec v1.1.1, descriptor.md, "Digests" and "Registered Algorithms".
"""

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from typing_extensions import override

from worker.errors import InvalidArgument

if TYPE_CHECKING:
    from hashlib import _Hash

_FORMS = {"sha256": re.compile(r"[0-9a-f]{64}"), "sha512": re.compile(r"[0-9a-f]{128}")}


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """`<algorithm>:<hex>`, checked, so that it is safe as a file name and in a URL.

    Attributes:
        algorithm: sha256 or sha512.
        hex: The lower-case hexadecimal hash.
    """

    algorithm: str
    hex: str

    @classmethod
    def parse(cls, text: object) -> Self:
        """Parse a digest string.

        Raises:
            InvalidArgument: For anything but a well-formed digest of a registered algorithm.
        """
        if isinstance(text, str):
            algorithm, _, encoded = text.partition(":")
            form = _FORMS.get(algorithm)
            if form is not None and form.fullmatch(encoded):
                return cls(algorithm, encoded)
        raise InvalidArgument(argument="digest", value=str(text)[:160], reason="expected sha256:<64 hex> or sha512:…")

    @classmethod
    def of(cls, content: bytes, *, algorithm: str = "sha256") -> Self:
        """Hash `content`."""
        return cls(algorithm, hashlib.new(algorithm, content).hexdigest())

    def hasher(self) -> "_Hash":
        """Return a fresh hash object of this digest's algorithm."""
        return hashlib.new(self.algorithm)

    @override
    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"
