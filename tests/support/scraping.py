# SPDX-License-Identifier: Apache-2.0
"""A worker's metrics as Prometheus gets them: over HTTP, parsed by prometheus_client."""

from collections.abc import Callable
from contextlib import closing
from http.client import HTTPConnection

from prometheus_client.parser import text_string_to_metric_families

from tests.support.ports import wait_until


class Page:
    """One answer of `/metrics`.

    Attributes:
        text: As it came.
        names: Of all samples on it.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        self.names = {sample.name for sample in samples}
        self._values = {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}

    def value(self, name: str, **labels: str) -> float:
        """Return a sample's value. Raises KeyError if it is not there."""
        return self._values[f"provisioner_{name}", frozenset(labels.items())]

    def verbs(self, verb: str) -> dict[str, float]:
        """Return how many attempts at a verb ended how, without those that never did."""
        outcomes = {
            dict(labels)["outcome"]: value
            for (name, labels), value in self._values.items()
            if name == "provisioner_verbs_total" and dict(labels)["verb"] == verb
        }
        return {outcome: value for outcome, value in outcomes.items() if value}


def get(port: int, path: str = "/metrics", *, accept: str = "") -> tuple[int, str, str]:
    """Ask 127.0.0.1:`port`; return status, content type and body."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request("GET", path, headers={"Accept": accept} if accept else {})
        answer = connection.getresponse()
        return answer.status, answer.getheader("Content-Type", ""), answer.read().decode()


def scrape(port: int) -> Page:
    """Read the page as it is now."""
    status, _, text = get(port)
    assert status == 200, text
    return Page(text)


def scrape_until(port: int, is_reached: Callable[[Page], bool], what: str) -> Page:
    """Read the page until it shows what was done: a child's observations take a moment to the main process."""
    pages: list[Page] = []

    def is_shown() -> bool:
        pages.append(scrape(port))
        return is_reached(pages[-1])

    wait_until(is_shown, what)
    return pages[-1]
