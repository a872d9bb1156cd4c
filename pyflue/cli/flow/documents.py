"""Flow documents and configs as commands read them, with what is wrong with them at its line and column."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..output import paint, shown

if TYPE_CHECKING:
    from ...stepflow.config import ConfigInvalid, StepflowConfig
    from ...stepflow.document import Flow

_COLOURS = {"fatal": "red", "error": "red", "warning": "yellow"}
#: Kinds from this number on are about keys without effect.
_WITHOUT_EFFECT = range(1900, 2000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is wrong with a file, or may be."""

    path: Path
    #: `fatal`, `error` or `warning`.
    level: str
    message: str
    line: int | None = None
    column: int | None = None
    code: int | None = None
    kind: str | None = None
    #: Where in the document: `$.steps[0].input`.
    place: str | None = None

    @property
    def is_bad(self) -> bool:
        return self.level != "warning"

    @property
    def is_about_the_run(self) -> bool:
        """Whether it matters to somebody who just wants to run the flow."""
        return self.is_bad or self.code in _WITHOUT_EFFECT

    def __str__(self) -> str:
        where = ":".join(str(part) for part in (self.path, self.line, self.column) if part is not None)
        code = "" if self.code is None else f"[{self.code}]"
        # Without a line, say where in the document it is.
        place = f"{self.place}: " if self.line is None and self.place not in {None, "$"} else ""
        level = paint(f"{self.level}{code}:", fg=_COLOURS[self.level])
        return f"{shown(where)}: {level} {shown(place + self.message)}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        names = ("level", "code", "kind", "message", "line", "column", "place")
        return {"path": str(self.path), **{name: getattr(self, name) for name in names}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """A flow's file that was read."""

    path: Path
    #: None if it is no flow; then the findings say why.
    flow: Flow | None
    findings: tuple[Finding, ...]


def read_flow_file(path: Path, config: StepflowConfig | None = None) -> Read:
    """Read a flow and look it over, with its config if that is given.

    Findings that say only what could not be checked are left out.
    """
    from ...stepflow.document import read_flow_text
    from ...stepflow.exceptions import DocumentMalformed, FlowMalformed, place_text
    from ...stepflow.reach import look_of
    from ...stepflow.validation import diagnose, without_config

    try:
        flow = read_flow_text(path.read_bytes(), path.suffix)
    except DocumentMalformed as error:
        finding = Finding(path=path, level="fatal", message=error.message, line=error.line, column=error.column)
        return Read(path=path, flow=None, findings=(finding,))
    except FlowMalformed as error:
        findings = tuple(
            Finding(
                path=path,
                level="fatal",
                message=f"{place_text(problem.path)}: {problem.message}",
                line=problem.line,
                column=problem.column,
                place=place_text(problem.path),
            )
            for problem in error.problems
        )
        return Read(path=path, flow=None, findings=findings)
    # Without a config there are the built-in components; but the flow may be meant for another place.
    look = without_config if config is None else look_of(config, is_certain=config.path is not None)
    findings = tuple(
        Finding(
            path=path,
            level=one.level.value,
            message=one.text,
            line=one.line,
            column=one.column,
            code=one.code,
            kind=one.kind.value,
            place=place_text(one.path),
        )
        for one in diagnose(flow, look).shown
    )
    return Read(path=path, flow=flow, findings=findings)


def config_for(given: Path | None, *, beside: Path | None = None, root: Path | None = None) -> StepflowConfig:
    """The config that was given, else the one beside the flow, in the current folder, or in the project's.

    Without any there are the built-in components.

    Raises:
        ConfigInvalid
    """
    from ...stepflow.config import default_config, find_config, read_config

    here = Path.cwd()
    path = given if given is not None else find_config(None if beside is None else beside.absolute().parent, here, root)
    return default_config(here) if path is None else read_config(path)


def of_config(config: StepflowConfig) -> list[Finding]:
    """What may be wrong with a config that can be used; nothing for the built-in components."""
    from ...stepflow.exceptions import place_text
    from ...stepflow.validation import diagnose_config

    if config.path is None:
        return []
    routes = {pattern: [rule.plugin for rule in rules] for pattern, rules in config.routes.items()}
    found = [
        Finding(
            path=config.path,
            level=one.level.value,
            message=one.text,
            code=one.code,
            kind=one.kind.value,
            place=place_text(one.path),
        )
        for one in diagnose_config(config.plugins, routes).shown
    ]
    return [*(_of_warning(config.path, text) for text in config.warnings), *found]


def _of_warning(path: Path, text: str) -> Finding:
    """A warning as a config says it, `file:line:column: what`, with its parts where they belong."""
    found = re.match(r":(\d+):(\d+): ", text.removeprefix(str(path)))
    if found is None:
        return Finding(path=path, level="warning", message=text)
    message = text.removeprefix(str(path))[found.end() :]
    return Finding(path=path, level="warning", message=message, line=int(found[1]), column=int(found[2]))


def of_broken_config(error: ConfigInvalid) -> Finding:
    """A config that cannot be used."""
    return Finding(path=Path(error.path), level="fatal", message=error.problem, line=error.line, column=error.column)


def say_findings(findings: list[Finding] | tuple[Finding, ...]) -> None:
    """A line on stderr for each."""
    for finding in findings:
        click.echo(str(finding), err=True)
