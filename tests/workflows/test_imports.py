"""What a workflow file may import, and what its module is like."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from pyflue.engine import FlueContext

from .conftest import ProjectFolder

Context = Callable[..., FlueContext[Any]]


async def test_a_file_with_postponed_annotations_and_a_dataclass_loads_and_its_objects_pickle(
    project: ProjectFolder, context: Context
) -> None:
    project.write(
        "workflows/pick.py",
        """
        from __future__ import annotations
        import pickle, typing
        from dataclasses import dataclass
        from typing import ClassVar

        @dataclass
        class Point:
            count: ClassVar[int] = 0
            x: int = 1

        async def run(ctx):
            assert typing.get_type_hints(Point)["x"] is int
            return pickle.loads(pickle.dumps(Point(2))) == Point(2)
        """,
    )
    assert await project.catalog().find("pick").run(context()) is True


async def test_a_helper_is_one_module_however_it_is_imported(project: ProjectFolder, context: Context) -> None:
    project.write("src/workflows/_lib/text.py", "class Text: ...\n")
    project.write("src/app/db.py", "import app.names\nNAME = __name__ + ' ' + app.names.NAME\n")
    project.write("src/app/names.py", "NAME = __name__\n")
    project.write("src/app/__init__.py", "from .db import NAME as db\n")
    project.write("settings_of_mine.py", "VALUE = __name__\n")
    project.write(
        "src/workflows/deep/all.py",
        """
        import app.db
        import app.db as module
        import settings_of_mine
        import src.workflows._lib.text
        from _lib.text import Text as bare
        from app import db, names
        from src.workflows._lib.text import Text as full
        from workflows._lib.text import Text as short
        from .._lib.text import Text as relative
        from ._here import *

        async def run(ctx):
            import _lib.text
            assert relative is full is short is bare is _lib.text.Text is src.workflows._lib.text.Text
            assert db == module == app.db
            return [here, db, names.NAME, settings_of_mine.VALUE, _lib.text.__spec__.loader.path]
        """,
    )
    file = project.write("src/workflows/deep/_here.py", "here = __name__\n")
    assert await project.catalog().find("deep.all").run(context()) == [
        "workflows.deep._here",
        "app.db app.names",
        "app.names",
        "settings_of_mine",
        str(file.parents[1] / "_lib/text.py"),
    ]


async def test_helpers_of_the_hidden_workflow_folder_are_importable(project: ProjectFolder, context: Context) -> None:
    project.write(".pyflue/workflows/_lib/text.py", "VALUE = 7\n")
    project.write(".pyflue/workflows/say.py", "from ._lib.text import VALUE\ndef run(ctx): return VALUE\n")
    project.write(".pyflue/workflows/bare.py", "from _lib import text\ndef run(ctx): return text.VALUE\n")
    catalog = project.catalog()
    assert [await catalog.find(name).run(context()) for name in ("say", "bare")] == [7, 7]


async def test_workflows_share_the_state_of_their_helpers(project: ProjectFolder, context: Context) -> None:
    project.write("src/pool.py", "calls = []\n")
    for name in ("one", "two"):
        project.write(
            f"workflows/{name}.py", "import pool\ndef run(ctx):\n    pool.calls.append(1)\n    return len(pool.calls)"
        )
    catalog = project.catalog()
    assert await catalog.find("one").run(context()) == 1
    assert await catalog.find("two").run(context()) == 2


async def test_helpers_that_import_each_other_load(project: ProjectFolder, context: Context) -> None:
    project.write("src/app/a.py", "import app.b\nimport app.b as other\ndef name(): return 'a' + app.b.name()\n")
    project.write("src/app/b.py", "from app import a\nimport app.a\ndef name(): return 'b' + a.__name__[-1]\n")
    project.write("workflows/cycle.py", "from app.a import name\ndef run(ctx): return name()\n")
    assert await project.catalog().find("cycle").run(context()) == "aba"


async def test_a_helper_named_like_an_installed_module_does_not_hide_it(
    project: ProjectFolder, context: Context
) -> None:
    project.write("msgspec.py", "raise AssertionError('not me')\n")
    project.write("json.py", "raise AssertionError('not me')\n")
    project.write(
        "workflows/both.py", "import json, msgspec\ndef run(ctx): return json.dumps(msgspec.json.decode(b'1'))\n"
    )
    assert await project.catalog().find("both").run(context()) == "1"


async def test_a_module_the_program_around_has_imported_is_shared_with_it(
    project: ProjectFolder, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write("src/host_pool.py", "pool = None\n")
    host_pool = ModuleType("host_pool")
    host_pool.pool = "opened"
    monkeypatch.setitem(sys.modules, "host_pool", host_pool)
    project.write("workflows/uses.py", "from host_pool import pool\ndef run(ctx): return pool\n")
    assert await project.catalog().find("uses").run(context()) == "opened"


async def test_two_projects_in_one_process_have_their_own_helpers(project: ProjectFolder, context: Context) -> None:
    catalogs = []
    for name in ("first", "second"):
        folder = ProjectFolder(project.root / name)
        folder.write("helper.py", f"NAME = {name!r}\n")
        folder.write("workflows/say.py", "import helper\ndef run(ctx): return helper.NAME\n")
        catalogs.append(folder.catalog())
    assert [await catalog.find("say").run(context()) for catalog in catalogs] == ["first", "second"]


async def test_resources_and_computed_imports_work(project: ProjectFolder, context: Context) -> None:
    project.write("src/app/__init__.py", "")
    project.write("src/app/words.txt", "hello")
    project.write("src/app/plugins/one.py", "from .. import words\nNAME = __name__\n")
    project.write("src/app/words.py", "")
    project.write(
        "workflows/uses.py",
        """
        import importlib, importlib.resources
        import app, app.plugins

        def run(ctx):
            by_name = importlib.import_module("app.plugins.one")
            by_package = importlib.import_module(".one", app.plugins.__package__)
            return [importlib.resources.files(app).joinpath("words.txt").read_text(), by_name.NAME, by_package.NAME]
        """,
    )
    assert await project.catalog().find("uses").run(context()) == ["hello", "app.plugins.one", "app.plugins.one"]


def test_the_project_and_its_src_are_on_the_path_once_and_last(project: ProjectFolder) -> None:
    project.write("src/workflows/one.py")
    project.write("src/workflows/two.py")
    before = list(sys.path)
    project.catalog().refresh()
    assert sys.path == [*before, str(project.root), str(project.root / "src")]


def test_finding_one_workflow_imports_no_other(project: ProjectFolder) -> None:
    project.write("workflows/echo.py")
    project.write("workflows/other.py", "raise AssertionError('not me')\n")
    catalog = project.catalog()
    assert catalog.names() == ["echo", "other"]
    assert catalog.find("echo").name == "echo"
    assert catalog.diagnostics() == []


def test_the_version_covers_the_file_and_what_it_imports_of_the_project(project: ProjectFolder) -> None:
    def versions() -> list[str]:
        catalog = project.catalog()
        return [catalog.find(name).version for name in ("lone", "user")]

    project.write("helper.py", "import deeper\n")
    project.write("deeper.py", "X = 1\n")
    project.write("unrelated.py", "X = 1\n")
    project.write("workflows/lone.py")
    project.write("workflows/user.py", "def run(ctx):\n    import helper\n")
    before = versions()
    assert versions() == before
    project.write("unrelated.py", "X = 2\n")
    assert versions() == before
    project.write("deeper.py", "X = 2\n")
    after = versions()
    assert (after[0] == before[0], after[1] == before[1]) == (True, False)
