# SPDX-License-Identifier: Apache-2.0
"""Strict JSON."""

import pytest

from worker.errors import InvalidImage
from worker.oci.document import decode_object, parse_digest


def test_an_object_is_decoded() -> None:
    """The plain case, text beyond ASCII and escaped pairs included."""
    assert decode_object('{"a": [1, "ü", "\\ud83d\\ude00"]}'.encode(), image="i") == {"a": [1, "ü", "😀"]}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"a": 1, "a": 2}', "repeated"),
        (b'{"a": {"b": 1, "b": 1}}', "repeated"),
        (b"[]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b"", "not strict JSON"),
        (b'{"a": 1} {"a": 2}', "not strict JSON"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "Infinity"),
        (b'{"a": "\xff"}', "not UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
        (b'\xef\xbb\xbf{"a": 1}', "not strict JSON"),
        (b'{"a": "\\ud800"}', "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not strict JSON"),
    ],
)
def test_what_two_readers_could_read_differently_is_refused(content: bytes, reason: str) -> None:
    """Parser differentials are how one digest comes to name two images."""
    with pytest.raises(InvalidImage, match=reason) as caught:
        decode_object(content, image="example.com/a", subject="manifest")

    assert "example.com/a" in str(caught.value)


def test_a_digest_in_a_document_is_the_images_fault() -> None:
    """What is malformed inside an image is `InvalidImage`, not a mistake of the caller's arguments."""
    with pytest.raises(InvalidImage, match="a DiffID is not a digest: 'sha256:x'"):
        parse_digest("sha256:x", image="i", subject="a DiffID")
