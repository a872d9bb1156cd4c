"""Tests that stand in flow documents: `test:` with cases, each an input and the outcome that is expected of it.

`pyflue flow test` calls `run_file` for each file and shows what comes back. Cases are run by whatever `open_executor`
opens for a config (`executes_on` makes that of a `Backend`). Servers that the cases need are in `case_servers.py`;
`case_update.py` writes outcomes back into the file. What counts as equal is as in stepflow-ai/stepflow
(`crates/stepflow-cli/src/test.rs`): what is expected has to be there, and there may be more.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, TypeAlias, cast

from .. import codec
from ..errors import PyFlueError
from .backend import Backend, NewRun
from .case_servers import ServerFailed, ServerPlan, running, substituted
from .config import ConfigInvalid as ConfigInvalid
from .config import StepflowConfig, default_config, find_config, read_config, read_config_value
from .document import Flow, read_flow
from .exceptions import DocumentMalformed, FlowMalformed
from .outcome import Failed, Outcome, to_wire
from .yaml_reader import read_document

TEST_CONFIG_NAMES = (
    "stepflow-config.test.yml",
    "stepflow-config.test.yaml",
    "stepflow_config.test.yml",
    "stepflow_config.test.yaml",
)

_SUFFIXES = frozenset({".yaml", ".yml"})
#: What makes a file that cannot be read one that was meant to be a flow.
_LOOKS_LIKE_A_FLOW = re.compile(rb"^[\"']?(?:steps|output)[\"']?\s*:", re.MULTILINE)
_NO_RUN_ID = "00000000-0000-0000-0000-000000000000"
_WAIT_S = 60.0
_SHOWN_DIFFERENCES = 10
_SHOWN_CHARS = 200

#: The words that later versions have for codes of failures, and the codes that such failures have here.
_CODE_WORDS: Mapping[str, frozenset[int]] = {
    "TIMEOUT": frozenset({500}),
    "INVALID_INPUT": frozenset({400, 500}),
    "COMPONENT_FAILED": frozenset({500}),
    "CANCELLED": frozenset({499, 500}),
    "UNREACHABLE": frozenset({500}),
    "COMPONENT_NOT_FOUND": frozenset({500}),
    "RESOURCE_UNAVAILABLE": frozenset({500}),
    "EXPRESSION_FAILURE": frozenset({1, 404, 500}),
    "ORCHESTRATOR_ERROR": frozenset({500}),
    "WORKER_ERROR": frozenset({500}),
}


class Verdict(StrEnum):
    """What became of a case."""

    PASSED = "passed"
    FAILED = "failed"  #: another outcome than expected
    UNDECIDED = "undecided"  #: it says no expected outcome, which counts as failed
    BROKEN = "broken"  #: it could not be run


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult:
    """A case that was run."""

    name: str
    #: Its place in `test.cases`.
    index: int
    verdict: Verdict
    #: Outcomes as JSON; ids of runs and backtraces are taken out.
    expected: Any = None
    actual: Mapping[str, Any] | None = None
    #: What is different, or why it could not be run.
    problems: Sequence[str] = ()

    @property
    def is_good(self) -> bool:
        return self.verdict is Verdict.PASSED

    def diff(self) -> str:
        """Expected and actual outcome, line by line."""
        lines = difflib.unified_diff(_lines(self.expected), _lines(self.actual), "expected", "actual", lineterm="")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileResult:
    """A file whose cases were run; without cases it has no test."""

    path: Path
    cases: Sequence[CaseResult] = ()
    #: Why no case could be run.
    problem: str | None = None

    @property
    def passed(self) -> int:
        return sum(case.is_good for case in self.cases)

    @property
    def is_good(self) -> bool:
        return self.problem is None and self.passed == len(self.cases)


class Executes(Protocol):
    """Runs a flow, as the document's JSON value, with an input."""

    def __call__(self, flow: Mapping[str, Any], value: Any, /) -> Awaitable[Outcome]: ...


#: Makes what runs flows with a config; closed when the file is done.
OpenExecutor: TypeAlias = Callable[[StepflowConfig], AbstractAsyncContextManager[Executes]]


def executes_on(backend: Backend) -> Executes:
    """Runs flows on a backend."""

    async def execute(flow: Mapping[str, Any], value: Any, /) -> Outcome:
        stored = await backend.store_flow(flow)
        if stored.flow_id is None:
            texts = [found.get("text", "") for found in stored.diagnostics.get("diagnostics", [])]
            raise PyFlueError(f"The flow cannot be run: {'; '.join(texts)}")
        started = await backend.start(NewRun(flow_id=stored.flow_id, inputs=[value]), wait_s=_WAIT_S)
        if started.outcome is not None:
            return started.outcome
        while not await backend.wait(started.run_id, _WAIT_S):
            pass
        [item] = await backend.items(started.run_id)
        return item.outcome or Failed(500, f"Run {started.run_id} ended as {item.status} without a result.")

    return execute


def find_files(paths: Sequence[Path]) -> list[Path]:
    """The YAML files in folders, and all files that are named, in order.

    Raises:
        FileNotFoundError: a path is not there.
    """
    found: set[Path] = set()
    for path in paths:
        if path.is_dir():
            found.update(_yaml_files(path))
        elif path.is_file():
            found.add(path)
        else:
            raise FileNotFoundError(f"There is no file or folder {path}.")
    return sorted(found)


def _yaml_files(folder: Path) -> Sequence[Path]:
    files: list[Path] = []
    for entry in folder.iterdir():
        if entry.name.startswith(".") or entry.name == "node_modules":
            continue
        if entry.is_dir() and not entry.is_symlink():
            files.extend(_yaml_files(entry))
        elif entry.suffix in _SUFFIXES and entry.is_file():
            files.append(entry)
    return files


async def run_file(
    path: Path, open_executor: OpenExecutor, *, config: Path | None = None, names: Collection[str] = ()
) -> FileResult | None:
    """Run the cases of a file, those of `names` only if there are any; None if the file is no flow."""
    try:
        flow = _read(path)
        if flow is None:
            return None
        cases = _cases(flow, names)
        if not cases:
            return FileResult(path=path)
        test = flow.test or {}
        async with AsyncExitStack() as stack:
            plans = ServerPlan.read_all(test.get("servers"), path.parent)
            ports = await stack.enter_async_context(running(plans))
            chosen = _config(path, test, config, ports)
            execute = await stack.enter_async_context(open_executor(chosen))
            return FileResult(path=path, cases=[await _run(case, index, flow, execute) for index, case in cases])
    except DocumentMalformed as error:
        return FileResult(path=path, problem=f"line {error.line}, column {error.column}: {error.message}")
    except (FlowMalformed, ServerFailed, PyFlueError) as error:
        return FileResult(path=path, problem=str(error))


def _read(path: Path) -> Flow | None:
    data = path.read_bytes()
    try:
        document = read_document(data, path.suffix)
    except DocumentMalformed:
        if _LOOKS_LIKE_A_FLOW.search(data):
            raise
        return None
    value: object = document.value
    if not isinstance(value, dict) or not {"steps", "output"} & cast("dict[str, Any]", value).keys():
        return None
    return read_flow(cast("Any", value), document.marks)


def _cases(flow: Flow, names: Collection[str]) -> list[tuple[int, Mapping[str, Any]]]:
    cases = cast("Sequence[Mapping[str, Any]]", (flow.test or {}).get("cases") or [])
    return [(index, case) for index, case in enumerate(cases) if not names or case["name"] in names]


def _config(path: Path, test: Mapping[str, Any], given: Path | None, ports: Mapping[str, int]) -> StepflowConfig:
    """The config for the cases of a file: a given one, its own, one for tests beside it, or that of the flow.

    Raises:
        ConfigInvalid
    """
    if given is not None:
        return read_config(given)
    own = test.get("config")
    if own is None:
        own = test.get("stepflow_config")
    folder = path.absolute().parent
    if own is not None:
        return read_config_value(substituted(own, ports), folder, name=f"test.config of {path}")
    found = [folder / name for name in TEST_CONFIG_NAMES if (folder / name).is_file()]
    if len(found) > 1:
        names = ", ".join(config.name for config in found)
        raise ConfigInvalid(str(folder), f"there are several configs for tests ({names}). Keep one, or name one.")
    chosen = found[0] if found else find_config(folder, Path.cwd())
    return default_config(folder) if chosen is None else read_config(chosen)


async def _run(case: Mapping[str, Any], index: int, flow: Flow, execute: Executes) -> CaseResult:
    name = case["name"]
    try:
        outcome = await execute(flow.source, case.get("input"))
    except (PyFlueError, ValueError) as error:
        return CaseResult(name=name, index=index, verdict=Verdict.BROKEN, problems=(str(error),))
    actual = normalised(codec.load(codec.encode(to_wire(outcome))))  # made of plain JSON types
    if case.get("output") is None:
        problem = "The case says no expected outcome: `--update` writes what came of it."
        return CaseResult(name=name, index=index, verdict=Verdict.UNDECIDED, actual=actual, problems=(problem,))
    expected = normalised(case["output"])
    problems = tuple(differences(expected, actual))
    verdict = Verdict.FAILED if problems else Verdict.PASSED
    return CaseResult(name=name, index=index, verdict=verdict, expected=expected, actual=actual, problems=problems)


# Comparing


def normalised(value: Any) -> Any:
    """A value without what differs from run to run: texts called `run_id`, and backtraces."""
    if isinstance(value, list):
        return [normalised(item) for item in cast("list[Any]", value)]
    if not isinstance(value, Mapping):
        return value
    fields = cast("Mapping[str, Any]", value)
    return {
        key: _NO_RUN_ID if key == "run_id" and isinstance(item, str) else normalised(item)
        for key, item in fields.items()
        if key != "backtrace"
    }


def differences(expected: Any, actual: Mapping[str, Any]) -> list[str]:
    """Where an outcome is not as expected; nothing if it is. Both as JSON."""
    if not isinstance(expected, Mapping) or cast("Mapping[str, Any]", expected).get("outcome") not in {
        "success",
        "failed",
        "skipped",
    }:
        return ["The case's `output` is no outcome: it needs `outcome` (success, failed or skipped)."]
    wanted = cast("Mapping[str, Any]", expected)
    if wanted["outcome"] != actual["outcome"]:
        said = f": {actual['error']['message']}" if "error" in actual else ""
        return [f"$.outcome: expected {wanted['outcome']}, got {actual['outcome']}{said}"]
    found: list[str] = []
    match wanted["outcome"]:
        case "success":
            _compare(wanted.get("result"), actual.get("result"), "$.result", found)
        case "failed":
            _compare_errors(wanted.get("error"), actual["error"], found)
        case _:
            if wanted.get("reason") is not None:
                _compare(wanted["reason"], actual.get("reason"), "$.reason", found)
    more = len(found) - _SHOWN_DIFFERENCES
    return [*found[:_SHOWN_DIFFERENCES], f"and {more} more"] if more > 0 else found


def _compare_errors(expected: Any, actual: Mapping[str, Any], found: list[str]) -> None:
    if not isinstance(expected, Mapping) or not {"code", "message"} <= cast("Mapping[str, Any]", expected).keys():
        found.append("$.error: what is expected needs `code` and `message`.")
        return
    wanted = cast("Mapping[str, Any]", expected)
    codes = _CODE_WORDS.get(wanted["code"]) if isinstance(wanted["code"], str) else frozenset({wanted["code"]})
    if codes is None or actual["code"] not in codes:
        found.append(f"$.error.code: expected {_shown(wanted['code'])}, got {_shown(actual['code'])}")
    if wanted["message"] != actual["message"]:
        found.append(f"$.error.message: expected {_shown(wanted['message'])}, got {_shown(actual['message'])}")
    if wanted.get("data") is not None:
        _compare(wanted["data"], actual.get("data"), "$.error.data", found)


def _compare(expected: Any, actual: Any, path: str, found: list[str]) -> None:
    match expected, actual:
        case dict(), dict():
            wanted_fields, fields = cast("tuple[dict[str, Any], dict[str, Any]]", (expected, actual))
            for key, wanted in wanted_fields.items():
                if key in fields:
                    _compare(wanted, fields[key], f"{path}.{key}", found)
                else:
                    found.append(f"{path}.{key}: expected {_shown(wanted)}, is not there")
        case list(), list():
            wanted_items, items = cast("tuple[list[Any], list[Any]]", (expected, actual))
            if len(wanted_items) != len(items):
                found.append(f"{path}: expected {len(wanted_items)} values, got {len(items)}")
                return
            for index, (wanted, item) in enumerate(zip(wanted_items, items, strict=True)):
                _compare(wanted, item, f"{path}[{index}]", found)
        case _:
            if not _is_same(expected, actual):
                found.append(f"{path}: expected {_shown(expected)}, got {_shown(actual)}")


def _is_same(expected: Any, actual: Any) -> bool:
    # `1`, `1.0` and `true` are equal to Python, and three different values here.
    return type(expected) is type(actual) and expected == actual


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…"


def _lines(value: Any) -> list[str]:
    return [] if value is None else json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True).splitlines()
