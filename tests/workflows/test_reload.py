"""Edits: the next run uses the new code, runs under way keep the old, a mistake takes nothing away."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pyflue.engine import EmbeddedEngine, FlueContext
from pyflue.engine.threads import run_in_own_thread
from pyflue.errors import WorkflowInvalid, WorkflowNotFound
from pyflue.workflows import Catalog
from pyflue.workflows.watch import watch
from tests.support import journal_at, new_run

from .conftest import ProjectFolder

Context = Callable[..., FlueContext[Any]]
SAYS = "async def run(ctx):\n    return {}\n"


async def test_an_edit_is_served_by_the_next_find(project: ProjectFolder, context: Context) -> None:
    project.write("workflows/say.py", SAYS.format(1))
    catalog = project.catalog()
    old = catalog.find("say")
    # The same size, and often the same tick of the file system's clock.
    project.write("workflows/say.py", SAYS.format(2))
    assert catalog.find("say") is old
    assert catalog.refresh()
    new = catalog.find("say")
    assert (await old.run(context()), await new.run(context())) == (1, 2)
    assert old.version != new.version
    assert not catalog.refresh()
    assert catalog.find("say") is new


def test_a_file_that_was_only_touched_is_not_loaded_again(project: ProjectFolder) -> None:
    file = project.write("workflows/say.py")
    catalog = project.catalog()
    workflow = catalog.find("say")
    os.utime(file, (1, 1))
    assert not catalog.refresh()
    assert catalog.find("say") is workflow


def test_new_files_appear_and_removed_ones_disappear(project: ProjectFolder) -> None:
    first = project.write("workflows/first.py")
    catalog = project.catalog()
    assert catalog.refresh()
    project.write("workflows/second.py")
    assert catalog.refresh()
    assert catalog.names() == ["first", "second"]
    first.unlink()
    assert catalog.refresh()
    assert catalog.names() == ["second"]
    with pytest.raises(WorkflowNotFound):
        catalog.find("first")


async def test_a_file_that_moves_to_another_folder_is_served_from_there(
    project: ProjectFolder, context: Context
) -> None:
    file = project.write("workflows/say.py", SAYS.format(1))
    catalog = project.catalog()
    assert catalog.refresh()
    file.unlink()
    moved = project.write(".pyflue/workflows/say.py", SAYS.format(2))
    assert catalog.refresh()
    assert catalog.find("say").path == moved
    assert await catalog.find("say").run(context()) == 2


async def test_a_mistake_keeps_the_last_good_version_serving(project: ProjectFolder, context: Context) -> None:
    file = project.write("workflows/say.py", SAYS.format(1))
    catalog = project.catalog()
    good = catalog.find("say")
    project.write("workflows/say.py", "async def run(ctx:\n")
    assert catalog.refresh()
    assert catalog.find("say") is good
    [entry] = catalog.entries()
    assert (entry.path, entry.workflow, entry.error.line) == (file, good, 1)
    assert [diagnostic.line for diagnostic in catalog.diagnostics()] == [1]
    assert not catalog.refresh()
    project.write("workflows/say.py", SAYS.format(3))
    assert catalog.refresh()
    assert await catalog.find("say").run(context()) == 3
    assert [entry.error for entry in catalog.entries()] == [None]


async def test_a_changed_helper_makes_new_versions_of_those_who_import_it(
    project: ProjectFolder, context: Context
) -> None:
    project.write("src/app/helper.py", "VALUE = 1\n")
    project.write("src/app/other.py", "def value():\n    from app import helper\n    return helper.VALUE\n")
    project.write("workflows/direct.py", "from app.helper import VALUE\nasync def run(ctx): return VALUE\n")
    project.write("workflows/through.py", "import app.other\nasync def run(ctx): return app.other.value()\n")
    project.write("workflows/without.py", SAYS.format(0))
    catalog = project.catalog()
    old = {entry.name: entry.workflow for entry in catalog.entries()}
    assert [await workflow.run(context()) for workflow in old.values()] == [1, 1, 0]
    project.write("src/app/helper.py", "VALUE = 2\n")
    assert catalog.refresh()
    assert [await catalog.find(name).run(context()) for name in old] == [2, 2, 0]
    assert [await workflow.run(context()) for workflow in old.values()] == [1, 1, 0]
    assert catalog.find("without") is old["without"]


@pytest.mark.parametrize(
    "statement",
    [
        "import helper",
        "import pack.helper as helper",
        "from pack import helper",
        "import pack.helper; helper = pack.helper",
        "from pack.helper import VALUE; import types; helper = types.SimpleNamespace(VALUE=VALUE)",
        "from ._lib import helper",
        "import indirect; helper = indirect.late()",
    ],
)
async def test_a_run_under_way_imports_the_code_it_started_with_however_late(
    project: ProjectFolder, context: Context, statement: str
) -> None:
    """The import is reached only after the helper was edited, and again after the new version was loaded and run."""
    helpers = ["helper.py", "pack/helper.py", "workflows/_lib/helper.py"]
    project.write("indirect.py", "def late():\n    import pack.helper\n    return pack.helper\n")
    for helper in helpers:
        project.write(helper, "VALUE = 'old'\n")
    project.write("workflows/late.py", f"async def run(ctx):\n    {statement}\n    return helper.VALUE\n")
    catalog = project.catalog()
    old = catalog.find("late")
    for helper in helpers:
        project.write(helper, "VALUE = 'new'\n")
    assert catalog.refresh()
    assert await old.run(context()) == "old"
    assert await catalog.find("late").run(context()) == "new"
    assert await old.run(context()) == "old"
    for helper in helpers:
        (project.root / helper).unlink()
    catalog.refresh()
    assert await old.run(context()) == "old"


async def test_a_missing_helper_is_found_as_soon_as_it_is_there(project: ProjectFolder, context: Context) -> None:
    project.write("workflows/one.py", "import a_helper_to_be\nasync def run(ctx): return a_helper_to_be.VALUE\n")
    project.write("workflows/two.py", "from ._lib.later import VALUE\nasync def run(ctx): return VALUE\n")
    project.write("workflows/three.py", "from pack import later\nasync def run(ctx): return later.VALUE\n")
    project.write("pack/__init__.py", "")
    catalog = project.catalog()
    assert all(entry.error for entry in catalog.entries())
    project.write("src/a_helper_to_be.py", "VALUE = 1\n")
    project.write("workflows/_lib/later.py", "VALUE = 2\n")
    project.write("pack/later.py", "VALUE = 3\n")
    assert catalog.refresh()
    assert [await catalog.find(name).run(context()) for name in ("one", "two", "three")] == [1, 2, 3]


def test_old_versions_are_forgotten_once_nobody_holds_them(project: ProjectFolder) -> None:
    project.write("helper.py", "VALUE = 0\n")
    project.write("workflows/say.py", "import helper\nasync def run(ctx): ...\n")
    catalog = project.catalog()
    first = weakref.ref(catalog.find("say"))
    for value in range(1, 4):
        project.write("helper.py", f"VALUE = {value}\n")
        assert catalog.refresh()
    gc.collect()
    assert first() is None
    mine = [
        name for name in sys.modules if name.startswith("_pyflue_") and str(project.root) in repr(sys.modules[name])
    ]
    assert len(mine) == 2  # the newest workflow and the newest helper


@asynccontextmanager
async def watched(catalog: Catalog) -> AsyncIterator[asyncio.Queue[None]]:
    changes: asyncio.Queue[None] = asyncio.Queue()
    ready = asyncio.Event()
    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(watch(catalog, on_change=lambda: changes.put_nowait(None), ready=ready))
        await ready.wait()
        while not changes.empty():
            changes.get_nowait()
        yield changes
        watching.cancel()


async def test_an_edit_is_served_within_a_second(project: ProjectFolder, context: Context) -> None:
    project.write("workflows/say.py", "from ._lib.word import WORD\nasync def run(ctx): return WORD\n")
    project.write("workflows/_lib/word.py", "WORD = 0\n")
    catalog = project.catalog()
    async with watched(catalog) as changes:
        for value in (1, 2):
            project.write("workflows/_lib/word.py", f"WORD = {value}\n")
            async with asyncio.timeout(1):
                await changes.get()
            assert await catalog.find("say").run(context()) == value


async def test_fifty_saves_are_one_reload(project: ProjectFolder, context: Context) -> None:
    project.write("workflows/say.py", SAYS.format("'start'"))
    catalog = project.catalog()

    def save_often(series: int) -> None:
        for number in range(50):
            project.write("workflows/say.py", SAYS.format(f"'{series}.{number}'"))
            time.sleep(0.005)

    async with watched(catalog) as changes:
        for series in range(5):
            await run_in_own_thread(save_often, series)
            reloads = 0
            while await catalog.find("say").run(context()) != f"{series}.49":
                await changes.get()
                reloads += 1
            if reloads == 1:
                return
    pytest.fail("every series of saves was taken apart")  # one may be, on a machine that stalls in the middle of it


async def test_files_in_new_folders_are_seen(project: ProjectFolder) -> None:
    catalog = project.catalog()
    async with watched(catalog) as changes:
        project.write("src/workflows/orders/refund.py")
        await changes.get()
        assert catalog.find("orders.refund").name == "orders.refund"


async def test_an_import_that_hangs_does_not_hold_up_other_edits(
    project: ProjectFolder, context: Context, signals: ModuleType
) -> None:
    project.write("workflows/say.py", SAYS.format(0))
    catalog = project.catalog()
    signals.go_on = threading.Event()
    hang = "import signals\nsignals.reached.set()\nsignals.go_on.wait(15)\nasync def run(ctx): ...\n"
    async with watched(catalog) as changes:
        project.write("workflows/hang.py", hang)
        assert await run_in_own_thread(signals.reached.wait, 5)
        project.write("workflows/say.py", SAYS.format(1))
        async with asyncio.timeout(2):
            await changes.get()
        assert await catalog.find("say").run(context()) == 1
        signals.go_on.set()
        await changes.get()
        assert catalog.find("hang").name == "hang"


def test_neither_the_state_folder_nor_environments_are_watched(project: ProjectFolder) -> None:
    for folder in (".venv/lib", "node_modules/x", ".git", "src/workflows", ".pyflue/workflows/sub", "data"):
        (project.root / folder).mkdir(parents=True)
    project.write("src/workflows/say.py", "import app.db\nasync def run(ctx): ...\n")
    project.write("src/app/db.py", "")
    catalog = project.catalog()
    catalog.refresh()
    assert {folder.relative_to(project.root).as_posix() for folder in catalog.folders()} == {
        ".",
        "src",
        "src/app",
        "src/workflows",
        ".pyflue/workflows",
        ".pyflue/workflows/sub",
    }


def test_a_catalog_may_be_used_from_many_threads(project: ProjectFolder) -> None:
    project.write("helper.py", "import time\ntime.sleep(0.05)\n")
    for number in range(8):
        project.write(f"workflows/w{number}.py", "import helper\nasync def run(ctx): ...\n")
    catalog = project.catalog()
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda number: catalog.find(f"w{number % 8}"), range(64)))
    assert {id(workflow) for workflow in found} == {id(catalog.find(f"w{number}")) for number in range(8)}


def test_a_file_that_cannot_be_read_says_so(project: ProjectFolder) -> None:
    file = project.write("workflows/say.py")
    catalog = project.catalog()
    assert catalog.names() == ["say"]
    file.unlink()
    with pytest.raises(WorkflowInvalid, match="the file cannot be read: No such file"):
        catalog.find("say")
    assert Path(file).parent.is_dir()


async def test_a_run_of_a_file_that_was_just_written_runs_that_file(project: ProjectFolder) -> None:
    """The run was accepted by another process, which has read the file before this one has."""
    project.write("src/workflows/early.py", "async def run(ctx):\n    return 1\n")
    journal = journal_at(project.root)
    here, there = project.catalog(), project.catalog()
    here.refresh()
    async with EmbeddedEngine(journal, here) as engine, asyncio.timeout(10):
        for text, result in (("    return 2\n", b"2"), ("    return 'three'\n", b'"three"')):
            project.write("src/workflows/early.py", "async def run(ctx):\n" + text)
            project.write(f"src/workflows/new_{result.decode().strip(chr(34))}.py", "async def run(ctx):\n" + text)
            there.refresh()
            for name in ("early", f"new_{result.decode().strip(chr(34))}"):
                workflow = there.find(name)
                accepted = new_run(owner=None, workflow=name, payload={}, workflow_version=workflow.version)
                await journal.accept(accepted)
                engine.look_again()
                run = await engine.wait(accepted.run_id)
                assert bytes(run.result or b"") == result
    await journal.close()
