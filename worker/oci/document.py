# SPDX-License-Identifier: Apache-2.0
"""Strict decoding of the JSON documents an image is made of.

Two readers of one document must never see two images. So the document is I-JSON (RFC 7493): UTF-8, no member name
twice in an object, no lone surrogates; and it is what it must be at the top.
"""

import json
import re
from typing import Any, NoReturn

from worker.errors import InvalidArgument, InvalidImage
from worker.oci.digest import Digest

_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")


def decode_object(content: bytes, *, image: str, subject: str = "document") -> dict[str, Any]:
    """Decode a JSON object.

    Args:
        content: The whole document; the caller bounds its size while reading it.
        image: Named in errors.
        subject: What the document is, for errors.

    Raises:
        InvalidImage: For anything but an I-JSON object.
    """
    decoded = _decode(content, image=image, subject=subject)
    if not isinstance(decoded, dict):
        raise InvalidImage(image=image, reason=f"its {subject} is not a JSON object")
    return decoded


def decode_array(content: bytes, *, image: str, subject: str) -> list[Any]:
    """Decode a JSON array, as the manifest of a `docker save` archive is; arguments and errors as `decode_object`."""
    decoded = _decode(content, image=image, subject=subject)
    if not isinstance(decoded, list):
        raise InvalidImage(image=image, reason=f"its {subject} is not a JSON array")
    return decoded


def _decode(content: bytes, *, image: str, subject: str) -> Any:
    try:
        text = content.decode()
        decoded = json.loads(text, object_pairs_hook=_unique_members, parse_constant=_refuse_constant)
        if _SURROGATE_ESCAPE.search(content):
            json.dumps(decoded, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise InvalidImage(image=image, reason=f"its {subject} is not strict JSON: {_explain(error)}") from error
    return decoded


def _explain(error: ValueError | RecursionError) -> str:
    """Say what is wrong without quoting the document, as the texts of Unicode errors would."""
    if isinstance(error, UnicodeError):
        return "it holds what is not UTF-8"
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)


def _unique_members(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object and refuse a repeated name, which readers resolve in different ways."""
    decoded = dict(members)
    if len(decoded) != len(members):
        raise ValueError("a member name is repeated in an object")
    return decoded


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def parse_digest(text: object, *, image: str, subject: str) -> Digest:
    """Parse a digest that stands in a document.

    Raises:
        InvalidImage: When it is no digest of a registered algorithm.
    """
    try:
        return Digest.parse(text)
    except InvalidArgument as error:
        raise InvalidImage(image=image, reason=f"{subject} is not a digest: {text!r:.160}") from error
