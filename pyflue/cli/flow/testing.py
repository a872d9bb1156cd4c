"""`pyflue flow test`: runs the cases that stand in flow documents, and tells which came out as expected."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import NOT_FOUND, Problem
from ..output import counted, paint, print_json, prints_aside, say, shown
from ..params import json_option
from .opening import opened, root_of
from .options import config_option

if TYPE_CHECKING:
    from ...stepflow.cases import CaseResult, Executes, FileResult
    from ...stepflow.config import StepflowConfig


@click.command("test")
@click.argument("paths", type=click.Path(exists=True, path_type=Path), nargs=-1, metavar="[PATH]...")
@config_option
@click.option(
    "--case", "names", multiple=True, metavar="NAME", help="Run the cases of this name only; can be repeated."
)
@click.option("--update", is_flag=True, help="Write what came of cases that failed into their files, as expected.")
@click.option("--diff", is_flag=True, help="Show expected and actual outcomes line by line.")
@json_option
@click.pass_context
def test_flows(
    ctx: click.Context,
    paths: tuple[Path, ...],
    config: Path | None,
    names: tuple[str, ...],
    update: bool,
    diff: bool,
    as_json: bool,
) -> None:
    """Run the test cases in flows, and compare what comes of them with what they expect.

    PATH is a flow, or a folder that is looked through for them; the current one by default. Expected has to be there,
    and there may be more. Nothing is recorded. Exit code 1 if a case failed; with --update only if a case or a file is
    left that could not be put right.

    The config is the one given, else test.config of the flow, stepflow-config.test.yml beside it, and so on as for run.
    """
    from ...engine import loops
    from ...stepflow.cases import find_files

    root = root_of(ctx)
    with prints_aside():
        results = loops.run(_run_all(find_files(paths or (Path(),)), root, config, names))
    if names and not any(file.cases or file.problem for file in results):
        raise Problem(f"There is no case {' or '.join(map(repr, names))}.", exit_code=NOT_FOUND)
    left = _update(results) if update else [_whole(file) for file in results]
    is_good = all(file.problem is None for file in results) and not any(left)
    if as_json:
        print_json(_as_json(results))
    else:
        _print(results, diff=diff)
    if not is_good:
        ctx.exit(1)


async def _run_all(
    files: Sequence[Path], root: Path | None, config: Path | None, names: Sequence[str]
) -> list[FileResult]:
    from ...stepflow.cases import executes_on, run_file

    @asynccontextmanager
    async def open_executor(chosen: StepflowConfig) -> AsyncGenerator[Executes]:
        async with opened(root, chosen, in_memory=True) as place:
            yield executes_on(place.backend)

    results = [await run_file(path, open_executor, config=config, names=names) for path in files]
    return [result for result in results if result is not None and (result.cases or result.problem)]


def _whole(file: FileResult) -> bool:
    """Whether a case of a file is not as it should be."""
    return not all(case.is_good for case in file.cases)


def _update(results: Sequence[FileResult]) -> list[bool]:
    """Write outcomes into the files; whether something is left in each that is not right."""
    from ...stepflow.case_update import UpdateRefused, update_file

    left: list[bool] = []
    for file in results:
        outputs = {case.index: case.actual for case in file.cases if not case.is_good and case.actual is not None}
        is_broken = any(case.actual is None for case in file.cases)
        if outputs:
            try:
                update_file(file.path, outputs)
                say(shown(f"{file.path}: {counted(len(outputs), 'case')} updated"))
            except UpdateRefused as error:
                say(shown(f"{file.path}: not updated: {error}"))
                is_broken = True
        left.append(is_broken)
    return left


def _print(results: Sequence[FileResult], *, diff: bool) -> None:
    for file in results:
        if file.problem is not None:
            click.echo(f"{_verdict('broken')} {shown(str(file.path))}: {shown(file.problem)}")
        for case in file.cases:
            click.echo(f"{_verdict(case.verdict.value)} {shown(f'{file.path}: {case.name}')}")
            for line in _details(case, diff=diff):
                click.echo(f"    {shown(line)}")
    cases = [case for file in results for case in file.cases]
    broken = sum(file.problem is not None for file in results)
    passed = sum(case.is_good for case in cases)
    parts = [counted(len(cases), "case"), f"{passed} passed", f"{len(cases) - passed} failed"]
    say(", ".join(parts + ([f"{counted(broken, 'file')} could not be tested"] if broken else [])))


def _verdict(verdict: str) -> str:
    return paint(f"{verdict:<9}", fg="green" if verdict == "passed" else "red")


def _details(case: CaseResult, *, diff: bool) -> Sequence[str]:
    if case.is_good:
        return ()
    if diff and case.actual is not None:
        return case.diff().splitlines() or case.problems
    return case.problems


def _as_json(results: Sequence[FileResult]) -> dict[str, Any]:
    cases = [case for file in results for case in file.cases]
    passed = sum(case.is_good for case in cases)
    files = [
        {
            "path": str(file.path),
            "problem": file.problem,
            "cases": [
                {
                    "name": case.name,
                    "verdict": case.verdict.value,
                    "expected": case.expected,
                    "actual": case.actual,
                    "problems": list(case.problems),
                }
                for case in file.cases
            ],
        }
        for file in results
    ]
    return {"files": files, "cases": len(cases), "passed": passed, "failed": len(cases) - passed}
