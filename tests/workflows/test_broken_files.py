"""F33: files that cannot be used are named with their line, and hide nobody."""

from __future__ import annotations

import threading
from types import ModuleType

import pytest

from pyflue.errors import WorkflowInvalid
from tests.promises import promise

from .conftest import ProjectFolder

BROKEN = {
    "syntax error": ("async def run(ctx):\n    return (\n", 2, "SyntaxError: '(' was never closed"),
    "null byte": ("a = 1\0\n", None, "null bytes"),
    "exception": (
        "VALUE = 1\ndef half():\n    return VALUE / 0\nhalf()\n",
        3,
        "importing it failed: ZeroDivisionError: division by zero",
    ),
    "exit": ("import sys\nsys.exit(3)\n", 2, "it called sys.exit(3) while it was imported."),
    "interrupt": ("raise KeyboardInterrupt\n", None, "loading it failed: KeyboardInterrupt"),
    "missing module": ("import no_such_module\n", 1, "importing it failed: ModuleNotFoundError: No module named"),
    "no run": ("value = 1\n", 1, "it has no function `run(ctx)`."),
    "not callable": ("run = 5\n", 1, "`run` is a int, not a function."),
    "class": ("class run:\n    def __init__(self, ctx): ...\n", 1, "`run` is a class, not a function."),
    "no argument": ("\n\nasync def run():\n    return 1\n", 3, "`run()` cannot be called with one argument"),
    "two arguments": ("def run(ctx, more):\n    return 1\n", 1, "`run(ctx, more)` cannot be called with one argument"),
    "generator": ("def run(ctx):\n    yield 1\n", 1, "`run` is a generator"),
    "async generator": ("async def run(ctx):\n    yield 1\n", 1, "`run` is a generator"),
    "unknown type": (
        "from __future__ import annotations\nasync def run(ctx: FlueContext[Tikcet]): ...\n",
        2,
        "the types of `run` cannot be read: name 'Tikcet' is not defined.",
    ),
    "type without JSON": (
        "import threading\nfrom pyflue import FlueContext\ndef run(ctx: FlueContext[threading.Thread]): ...\n",
        3,
        "the payload type of `run` has no JSON form",
    ),
    "name error in the text of an error": (
        "class E(Exception):\n    def __str__(self): 1/0\nraise E\n",
        None,
        "failed",
    ),
}


@promise("F33")
@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_file_is_named_with_its_line_and_the_others_are_served(project: ProjectFolder, what: str) -> None:
    text, line, problem = BROKEN[what]
    project.write("workflows/broken.py", text)
    project.write("workflows/fine.py")
    catalog = project.catalog()
    assert catalog.refresh()
    assert catalog.find("fine").name == "fine"
    with pytest.raises(WorkflowInvalid) as caught:
        catalog.find("broken")
    error = caught.value
    assert (error.path, error.line) == ("workflows/broken.py", line)
    assert problem in error.problem
    [diagnostic] = catalog.diagnostics()
    assert (diagnostic.path, diagnostic.line, diagnostic.message) == (error.path, error.line, error.problem)


def test_an_error_in_a_helper_names_both_files(project: ProjectFolder) -> None:
    project.write("workflows/_lib/bad.py", "x = 1\nraise ValueError('too bad')\n")
    project.write("workflows/_lib/worse.py", "x = (\n")
    project.write("workflows/one.py", "\nfrom ._lib import bad\nasync def run(ctx): ...\n")
    project.write("workflows/two.py", "from workflows._lib.worse import x\nasync def run(ctx): ...\n")
    project.write("workflows/three.py", "from ._lib.nowhere import x\nasync def run(ctx): ...\n")
    catalog = project.catalog()
    said = [str(entry.error) for entry in catalog.entries()]
    assert said == [
        "workflows/one.py:2: importing it failed in workflows/_lib/bad.py:2: ValueError: too bad",
        "workflows/three.py:1: importing it failed: ModuleNotFoundError: No module named 'workflows._lib.nowhere'",
        "workflows/two.py:1: SyntaxError in workflows/_lib/worse.py:1: '(' was never closed",
    ]
    trace = catalog.entries()[0].error.details["traceback"]
    assert "one.py" in trace
    assert "importlib" not in trace.partition("one.py")[0]


@promise("F33")
def test_an_endless_loop_at_import_is_given_up_and_the_others_are_served_meanwhile(
    project: ProjectFolder, signals: ModuleType
) -> None:
    """F33: the loop is stopped, too: it would slow down everybody else."""
    project.write("workflows/a_loop.py", "while True: pass\n")
    project.write("workflows/b_fine.py", "import signals\nsignals.reached.set()\nasync def run(ctx): ...\n")
    catalog = project.catalog(import_timeout_s=3.0)
    refreshing = threading.Thread(target=catalog.refresh)
    refreshing.start()
    assert signals.reached.wait(2.9)
    assert catalog.find("b_fine").name == "b_fine"
    with pytest.raises(WorkflowInvalid, match="it is still being imported"):
        catalog.find("a_loop")
    refreshing.join(10)
    with pytest.raises(WorkflowInvalid, match="importing it took longer than 3 s; is there an endless loop in it"):
        catalog.find("a_loop")
    assert_ends("pyflue import a_loop")


def test_an_endless_loop_that_is_repaired_is_served_at_once(project: ProjectFolder, signals: ModuleType) -> None:
    loop = project.write("workflows/loop.py", "import signals\nsignals.reached.set()\nwhile True: pass\n")
    catalog = project.catalog(import_timeout_s=60.0)
    refreshing = threading.Thread(target=catalog.refresh)
    refreshing.start()
    assert signals.reached.wait(5)
    loop.write_text("async def run(ctx):\n    return 1\n")
    assert catalog.refresh()
    assert catalog.find("loop").name == "loop"
    refreshing.join(5)
    assert not refreshing.is_alive()
    assert_ends("pyflue import loop")


def assert_ends(thread_name: str) -> None:
    for thread in threading.enumerate():
        if thread.name == thread_name:
            thread.join(10)
            assert not thread.is_alive()
