# SPDX-License-Identifier: Apache-2.0
"""Every error is one sentence over its annotated attributes, and survives the result backend."""

import string
from collections.abc import Iterator

import pytest

from worker import errors
from worker.errors import PermanentError, ProvisionerError, TransientError


def _leaves() -> Iterator[type[ProvisionerError]]:
    for value in vars(errors).values():
        if isinstance(value, type) and issubclass(value, TransientError | PermanentError):
            yield value


def _fields(cls: type[ProvisionerError]) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(cls.sentence) if name}


@pytest.mark.parametrize("cls", [cls for cls in _leaves() if cls not in (TransientError, PermanentError)])
def test_a_sentence_uses_exactly_the_annotated_attributes(cls: type[ProvisionerError]) -> None:
    """What the class annotates is what its sentence names."""
    annotated = {name for name in cls.__annotations__ if name not in ("retry_after_seconds", "sentence")}

    assert annotated == _fields(cls)
    assert cls.__doc__


@pytest.mark.parametrize("cls", [cls for cls in _leaves() if cls not in (TransientError, PermanentError)])
def test_an_error_is_rebuilt_from_its_message(cls: type[ProvisionerError]) -> None:
    """Celery rebuilds an exception by calling its class with `args`."""
    facts = {name: 7 if name in ("maximum", "seconds", "expected", "actual") else f"<{name}>" for name in _fields(cls)}

    error = cls(**facts)
    rebuilt = cls(*error.args)

    assert str(rebuilt) == str(error)
    assert all(str(fact) in str(error) for fact in facts.values())
    assert all(getattr(error, name) == fact for name, fact in facts.items())
