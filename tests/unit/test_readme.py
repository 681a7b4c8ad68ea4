# SPDX-License-Identifier: Apache-2.0
"""The README's tables say what the code says; `python -m tests.unit.test_readme` rewrites them."""

import re
from pathlib import Path

import click
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from worker.cli.entry import commands
from worker.requests import DestroyRequest, ProvisionRequest, PruneRequest, PullRequest, RecoverRequest
from worker.settings import Settings

README = Path(__file__).resolve().parents[2] / "README.md"
REQUESTS: dict[str, type[BaseModel]] = {
    "provision": ProvisionRequest,
    "destroy": DestroyRequest,
    "prune": PruneRequest,
    "pull": PullRequest,
    "recover": RecoverRequest,
}


def settings_table() -> str:
    """Return the table that belongs between the README's settings marks."""
    rows = ["| variable | default | meaning |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        rows.append(f"| `PROVISIONER_{name.upper()}` | {default_of(name)} | {field.description} |")
    return "\n".join(rows)


def default_of(setting: str) -> str:
    """Return a setting's default as documents show it."""
    value = Settings.model_fields[setting].default
    if value is PydanticUndefined:
        return "the host name"
    shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
    return "unset" if value in (None, ()) else f"`{shown}`"


def _keyword(name: str, default: object) -> str:
    if default is PydanticUndefined:
        return f"`{name}`"
    shown = f'"{default}"' if isinstance(default, str) else str([] if default == () else default)
    return f"`{name}={shown}`"


def keywords_of(request: type[BaseModel]) -> str:
    """Return a task's keywords as they stand in the README's table."""
    return ", ".join(_keyword(name, field.default) for name, field in request.model_fields.items())


def rewritten(text: str) -> str:
    """Return the README with its tables as they must be."""
    before, start, rest = text.partition("<!-- settings -->\n")
    text = f"{before}{start}{settings_table()}\n<!-- /settings -->{rest.partition('<!-- /settings -->')[2]}"
    for task, request in REQUESTS.items():
        row = re.compile(rf"^(\| `provisioner\.{task}` \| ).*?( \| )", re.MULTILINE)
        text = row.sub(lambda found, request=request: found[1] + keywords_of(request) + found[2], text)
    return text


def test_the_settings_table_is_that_of_the_settings() -> None:
    """Every field is listed with its default and its meaning, in order."""
    text = README.read_text(encoding="utf-8")

    shown = text.partition("<!-- settings -->\n")[2].partition("\n<!-- /settings -->")[0]

    assert shown == settings_table()


def test_the_task_table_lists_the_keywords_that_tasks_take() -> None:
    """Names, order and defaults are those that a request is parsed with."""
    text = README.read_text(encoding="utf-8")

    for task, request in REQUESTS.items():
        assert f"| `provisioner.{task}` | {keywords_of(request)} |" in text


def test_the_command_table_lists_every_command() -> None:
    """No command is missing, none is there that does not exist."""
    text = README.read_text(encoding="utf-8")

    listed = set(re.findall(r"^\| `provisioner ([a-z-]+)", text, re.MULTILINE))

    assert listed == set(commands.commands)


def test_the_command_table_names_only_options_that_exist() -> None:
    """An option in a row belongs to the row's command."""
    text = README.read_text(encoding="utf-8")

    for name, rest in re.findall(r"^\| `provisioner ([a-z-]+)([^`]*)`", text, re.MULTILINE):
        existing = {option for parameter in commands.commands[name].params for option in parameter.opts}
        existing |= {option for parameter in commands.commands[name].params for option in parameter.secondary_opts}
        assert set(re.findall(r"--[a-z-]+", rest)) <= existing


def test_the_command_table_names_every_option_of_a_commands_own() -> None:
    """By one of its names; --json and --timeout are many commands' and stand above the table."""
    text = README.read_text(encoding="utf-8")

    for name, rest in re.findall(r"^\| `provisioner ([a-z-]+)([^`]*)`", text, re.MULTILINE):
        options = [parameter for parameter in commands.commands[name].params if isinstance(parameter, click.Option)]
        own = [set(option.opts) for option in options if not {"--json", "--timeout"} & set(option.opts)]
        named = set(re.findall(r"(?<!\w)--?[a-zA-Z-]+", rest))
        assert [names for names in own if not names & named] == [], name


def test_every_benchmark_has_a_row() -> None:
    """In the table of their own README."""
    directory = README.with_name("tests") / "benchmarks"
    text = (directory / "README.md").read_text(encoding="utf-8")

    listed = set(re.findall(r"^\| `([a-z]+)` \|", text.partition("## Images")[0], re.MULTILINE))

    assert listed == {path.stem for path in directory.glob("[!_]*.py")}


if __name__ == "__main__":
    README.write_text(rewritten(README.read_text(encoding="utf-8")), encoding="utf-8")
