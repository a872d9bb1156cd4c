"""What `flow run` and `flow submit` are given: the flow, its input or inputs, variables, overrides, where it goes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from ..errors import FAILED, USAGE, Problem
from ..output import counted, print_json
from ..params import json_option
from .documents import read_flow_file, say_findings

if TYPE_CHECKING:
    from ...stepflow.document import Flow

F = TypeVar("F", bound=Callable[..., Any])

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_YAML = frozenset({".yaml", ".yml"})


class _FlowFile(click.Path):
    """A flow's file. Who gives the name of a workflow is told how those are run."""

    name = "file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            if not (isinstance(value, str) and value.isidentifier()):
                raise
            told = f"{error.message} A workflow of the project is run with `pyflue run {value}`."
            raise click.BadParameter(told, ctx=ctx, param=param) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What was asked for."""

    path: Path
    flow: Flow
    inputs: Sequence[Any]
    #: Whether they came from `--inputs`, be there only one.
    is_batch: bool
    variables: Mapping[str, Any]
    overrides: Mapping[str, Any] | None
    max_concurrency: int | None
    output: Path | None
    as_json: bool


def config_option(function: F) -> F:
    """Adds `--config`."""
    return click.option("--config", type=FILE, metavar="FILE", help="The config: plugins and routes to components.")(
        function
    )


def order_options(function: F) -> F:
    """Adds all that `read_order` reads."""
    options = (
        click.argument("flow", type=_FlowFile(exists=True, dir_okay=False, path_type=Path), required=False),
        click.option(
            "--flow", "flow_option", type=FILE, metavar="FILE", help="The flow; or name it without an option."
        ),
        click.option("--input", "input_file", type=FILE, metavar="FILE", help="The input: a JSON or YAML file."),
        click.option("--input-json", metavar="JSON", help="The input as JSON."),
        click.option("--input-yaml", metavar="YAML", help="The input as YAML."),
        click.option(
            "--stdin-format",
            type=click.Choice(["json", "yaml"]),
            help="Read the input from stdin, in this format. Without any input, what is piped in is read as JSON. [{}]",
        ),
        click.option(
            "--inputs",
            type=FILE,
            metavar="FILE",
            help="Run once for each line of a file, which is JSON each (a batch).",
        ),
        click.option(
            "--max-concurrent", type=click.IntRange(min=1), metavar="N", help="So many steps at once, in all. [10]"
        ),
        click.option("--variables", type=FILE, metavar="FILE", help="Variables: a JSON or YAML file."),
        click.option("--variables-json", metavar="JSON", help="Variables as a JSON object."),
        click.option("--variables-yaml", metavar="YAML", help="Variables as YAML."),
        click.option(
            "--env-variables",
            is_flag=True,
            help="Take variables that are not given otherwise from STEPFLOW_VAR_<NAME>: JSON, else text.",
        ),
        click.option("--overrides", type=FILE, metavar="FILE", help="Changes to steps: a JSON or YAML file."),
        click.option("--overrides-json", metavar="JSON", help="Changes to steps, as JSON: {STEP: {value: …}}."),
        click.option("--overrides-yaml", metavar="YAML", help="Changes to steps, as YAML."),
        click.option(
            "--output",
            type=click.Path(dir_okay=False, path_type=Path),
            metavar="FILE",
            help="Write the outcome to this file instead: .yaml, .json; a batch as .jsonl, too.",
        ),
    )
    function = json_option(function)
    for option in reversed(options):
        function = option(function)
    return function


def read_order(given: Mapping[str, Any], *, refuse: Callable[[str], bool]) -> Order:
    """What the options say. Findings about the flow are told on stderr; those of a refused level end the command.

    Raises:
        Problem, click.UsageError
    """
    path = flow_path(given["flow"], given["flow_option"])
    _refuse_two(given, "input_file", "input_json", "input_yaml", "stdin_format", "inputs")
    _refuse_two(given, "variables", "variables_json", "variables_yaml")
    _refuse_two(given, "overrides", "overrides_json", "overrides_yaml")
    _check_output(given["output"])
    flow = _read_flow(path, refuse, as_json=given["as_json"])
    overrides = _object(given, "overrides")
    return Order(
        path=path,
        flow=flow,
        inputs=_inputs(given),
        is_batch=given["inputs"] is not None,
        variables=_variables(given, _patched(flow, overrides, _used(given, "overrides"))),
        overrides=overrides,
        max_concurrency=given["max_concurrent"],
        output=given["output"],
        as_json=given["as_json"],
    )


def flow_path(argument: Path | None, option: Path | None) -> Path:
    """The flow's file, named in one of two ways."""
    if argument is not None and option is not None:
        raise click.UsageError("FLOW and --flow exclude each other.")
    path = argument or option
    if path is None:
        raise click.UsageError("Which flow? Name its file.")
    return path


def _read_flow(path: Path, refuse: Callable[[str], bool], *, as_json: bool) -> Flow:
    read = read_flow_file(path)
    refused = [finding for finding in read.findings if refuse(finding.level)]
    say_findings([finding for finding in read.findings if finding.is_about_the_run])
    if read.flow is None or refused:
        if as_json:
            print_json({"diagnostics": [finding.to_dict() for finding in read.findings]})
        raise Problem(f"{path} cannot be run: {counted(len(refused), 'problem')}.", exit_code=FAILED)
    return read.flow


# Values


def _inputs(given: Mapping[str, Any]) -> Sequence[Any]:
    if given["inputs"] is not None:
        return _lines(given["inputs"])
    if given["input_file"] is not None:
        return [_from_file(given["input_file"], "--input")]
    if given["input_json"] is not None:
        return [_value(given["input_json"], ".json", "--input-json")]
    if given["input_yaml"] is not None:
        return [_value(given["input_yaml"], ".yaml", "--input-yaml")]
    return [_from_stdin(given["stdin_format"])]


def _from_stdin(kind: str | None) -> Any:
    # A terminal is not waited for unless its user has asked for that.
    if sys.stdin is None or (kind is None and sys.stdin.isatty()):  # pyright: ignore[reportUnnecessaryComparison]
        return {}
    data = sys.stdin.buffer.read()
    return _value(data, f".{kind or 'json'}", "--stdin-format", Path("stdin")) if data.strip() else {}


def _lines(path: Path) -> list[Any]:
    from ...stepflow.exceptions import DocumentMalformed
    from ...stepflow.yaml_reader import read_json

    values: list[Any] = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            values.append(read_json(line))
        except DocumentMalformed as error:
            raise _bad("--inputs", f"{path}:{number}:{error.column}: {error.message}") from error
    if not values:
        raise _bad("--inputs", f"{path} holds no input: one JSON value on each line.")
    return values


def _variables(given: Mapping[str, Any], flow: Flow) -> Mapping[str, Any]:
    """The variables that were given. Raises as `read_order`: one that is required is not."""
    from ...stepflow.exceptions import MissingVariable
    from ...stepflow.variables import resolve_variables

    variables: Mapping[str, Any] = _object(given, "variables") or {}
    if given["env_variables"]:
        from ...stepflow.workflow import environment_variables

        variables = {**environment_variables(flow, os.environ), **variables}
    try:
        resolve_variables(flow, variables)
    except MissingVariable as error:
        name = f"STEPFLOW_VAR_{error.name.upper()}"
        hint = f"Give it with --variables, --variables-json or --variables-yaml; or --env-variables and {name}."
        raise Problem(str(error), hint=hint, exit_code=USAGE) from error
    return variables


def _patched(flow: Flow, overrides: Mapping[str, Any] | None, option: str) -> Flow:
    """The flow with its overrides: that they fit is known before anything runs."""
    from ...stepflow.exceptions import LanguageError
    from ...stepflow.overrides import apply_overrides

    try:
        return apply_overrides(flow, overrides)
    except LanguageError as error:
        raise _bad(option, str(error)) from error


def _used(given: Mapping[str, Any], name: str) -> str:
    """Which of three options was given: a file, JSON, YAML."""
    return next((f"--{name}-{form}" for form in ("json", "yaml") if given[f"{name}_{form}"] is not None), f"--{name}")


def _object(given: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    """The object that one of three options says: a file, JSON, YAML."""
    file, as_json, as_yaml = given[name], given[f"{name}_json"], given[f"{name}_yaml"]
    if file is not None:
        option, value = f"--{name}", _from_file(file, f"--{name}")
    elif as_json is not None:
        option, value = f"--{name}-json", _value(as_json, ".json", f"--{name}-json")
    elif as_yaml is not None:
        option, value = f"--{name}-yaml", _value(as_yaml, ".yaml", f"--{name}-yaml")
    else:
        return None
    if not isinstance(value, dict):
        raise _bad(option, "it has to be an object.")
    return cast("Mapping[str, Any]", value)


def _from_file(path: Path, option: str) -> Any:
    return _value(path.read_bytes(), path.suffix, option, path)


def _value(data: str | bytes, suffix: str, option: str, path: Path | None = None) -> Any:
    from ...stepflow.exceptions import DocumentMalformed
    from ...stepflow.yaml_reader import read_document

    try:
        return read_document(data, suffix).value
    except DocumentMalformed as error:
        where = f"line {error.line}, column {error.column}" if path is None else f"{path}:{error.line}:{error.column}"
        raise _bad(option, f"{where}: {error.message}") from error


def _refuse_two(given: Mapping[str, Any], *names: str) -> None:
    used = [f"--{name.removesuffix('_file').replace('_', '-')}" for name in names if given[name] is not None]
    if len(used) > 1:
        raise click.UsageError(f"{used[0]} and {used[1]} exclude each other.")


def _check_output(path: Path | None) -> None:
    # Before anything runs: nobody wants to hear it afterwards.
    if path is not None and not path.absolute().parent.is_dir():
        raise _bad("--output", f"there is no folder {path.parent}.")


def _bad(option: str, problem: str) -> click.BadParameter:
    return click.BadParameter(problem, param_hint=f"'{option}'")
