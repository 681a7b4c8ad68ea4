# SPDX-License-Identifier: Apache-2.0
"""`Field`: a value somewhere in a decoded document, which knows its place so that an error can name it."""

import re
from dataclasses import dataclass
from typing import Any, NoReturn, Self

from worker.errors import InvalidImage


@dataclass(frozen=True, slots=True)
class Field:
    """A value and the path that leads to it. Every reading method raises `InvalidImage` for a value of another kind.

    Attributes:
        image: Named in errors.
        path: Such as `app.environment[2].name`; empty for the document itself.
        value: Decoded; None for what is absent.
    """

    image: str
    path: str
    value: Any

    def refuse(self, reason: str) -> NoReturn:
        """Raise `InvalidImage`; `reason` goes on behind the field's path."""
        raise InvalidImage(image=self.image, reason=f"in its manifest {self.path or 'the document'} {reason}")

    @property
    def is_absent(self) -> bool:
        """Whether there is nothing, or null, which readers of the format treat alike."""
        return self.value is None

    def member(self, name: str) -> Self:
        """Return a member of an object, perhaps absent."""
        if not isinstance(self.value, dict):
            self.refuse(f"is {self._shown}, expected an object")
        return type(self)(self.image, f"{self.path}.{name}" if self.path else name, self.value.get(name))

    def items(self) -> list[Self]:
        """Return the items of a list; none of one that is absent."""
        if self.value is None:
            return []
        if not isinstance(self.value, list):
            self.refuse(f"is {self._shown}, expected a list")
        return [type(self)(self.image, f"{self.path}[{number}]", item) for number, item in enumerate(self.value)]

    def text(self, form: re.Pattern[str] | None = None, *, expected: str = "a string") -> str:
        """Return a string that must be there and, as a whole, be of the form."""
        if not isinstance(self.value, str) or (form is not None and not form.fullmatch(self.value)):
            self.refuse("is missing" if self.is_absent else f"is {self._shown}, expected {expected}")
        return self.value

    def integer(self, lowest: int, highest: int) -> int:
        """Return a number within bounds that must be there."""
        is_number = isinstance(self.value, int) and not isinstance(self.value, bool)
        if not is_number or not lowest <= self.value <= highest:
            self.refuse("is missing" if self.is_absent else f"is {self._shown}, expected {lowest} to {highest}")
        return int(self.value)

    def check_flag(self) -> None:
        """Accept true, false and what is absent."""
        if not isinstance(self.value, bool | None):
            self.refuse(f"is {self._shown}, expected true or false")

    @property
    def _shown(self) -> str:
        if isinstance(self.value, dict | list):
            return "an object" if isinstance(self.value, dict) else "a list"
        return f"{self.value!r:.80}"
