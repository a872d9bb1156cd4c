"""The code node: ordinary Python, in an interpreter that reaches nothing and ends within its limits."""

from __future__ import annotations

import asyncio
import builtins
import time
from pathlib import Path
from typing import Any

import pytest

import pyflue.flowgram as fg
from tests.promises import promise

from .graphs import Json, end, fields, graph, node, ref, start

WITH_A_CLASS = """
class P:
    def __init__(self, x):
        self.x = x
    def twice(self):
        return self.x * 2

def main(p):
    return P(4).twice()
"""
WITH_IMPORTS = """
import json, math, re

def main(p):
    return [json.dumps([1]), math.floor(2.5), re.sub('a', 'b', 'aa')]
"""
WITH_TRY = """
def main(p):
    try:
        return 1 / 0
    except ZeroDivisionError as e:
        return f'{type(e).__name__}'
"""


def scripted(content: str | None, language: str | None = None, **limits: int) -> Json:
    script: Json = dict(limits)
    script |= {} if content is None else {"content": content}
    script |= {} if language is None else {"language": language}
    inputs = fields(a="integer", o="object")
    work = node(
        "c",
        "code",
        inputs=inputs,
        inputsValues={"a": ref("start", "a"), "o": ref("start", "o")},
        script=script,
        outputs=fields(result="object", x="integer"),
    )
    return graph(
        [
            start(a="integer", o="object"),
            work,
            end({"result": ref("c", "result"), "x": ref("c", "x")}, result="object", x="integer"),
        ],
        "start -> c -> end",
    )


async def value_of(content: str, **inputs: Any) -> Any:
    """What a script's `main` returns."""
    task = fg.start(scripted(content), {"a": 3, **inputs})
    await task.wait(30)
    return task.report().reports["c"].snapshots[0].outputs


async def error_of(content: str | None, language: str | None = None, **limits: int) -> str:
    with pytest.raises(fg.NodeFailed) as failed:
        await fg.run(scripted(content, language, **limits), {"a": 3})
    return failed.value.message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("def main(p):\n    return {'x': p['params']['a'] + 1}", {"x": 4}),
        ("def main(p):\n    return [1, 2]", {"result": [1, 2]}),
        ("def main(p):\n    return None", {"result": None}),
        (
            "K = 2\ndef helper(a, b=1):\n    return a * K + b\n\ndef main(p):\n    return helper(p['params']['a'])",
            {"result": 7},
        ),
        ("def main(p):\n    n = 1\n    n += 4\n    n **= 2\n    return n", {"result": 25}),
        ("def main(p):\n    x: int = 5\n    return x", {"result": 5}),
        ("def main(p):\n    return sum(i * i for i in range(4) if i != 2)", {"result": 10}),
        ("def main(p):\n    return {k: v for k, v in zip('ab', [1, 2])}", {"a": 1, "b": 2}),
        (
            WITH_A_CLASS,
            {"result": 8},
        ),
        (
            "def f(*args, **more):\n    return [list(args), more]\n\ndef main(p):\n    return f(*[1, 2], z=3)",
            {"result": [[1, 2], {"z": 3}]},
        ),
        ("async def main(p):\n    return {'x': 1}", {"x": 1}),
        ("main = lambda p: p['params']['a']", {"result": 3}),
        (
            WITH_IMPORTS,
            {"result": ["[1]", 2, "bb"]},
        ),
        (
            WITH_TRY,
            {"result": "ZeroDivisionError"},
        ),
        ("def main(p):\n    return (1, (2,))", {"result": [1, [2]]}),
        ("def main(p):\n    return 2 ** 100", {"result": 2**100}),
    ],
)
async def test_ordinary_python_works(content: str, expected: Any) -> None:
    assert await value_of(content) == expected


async def test_what_a_script_prints_is_a_message() -> None:
    task = fg.start(scripted("def main(p):\n    print('seen', p['params']['a'])\n    return {}"), {"a": 3})
    await task.wait(30)
    assert [(m.nodeID, m.type, m.message) for m in task.report().messages] == [("c", "info", "seen 3\n")]


async def test_printing_without_end_is_cut_off() -> None:
    task = fg.start(
        scripted("def main(p):\n    for _ in range(20000):\n        print('x' * 100)\n    return {}"), {"a": 3}
    )
    await task.wait(30)
    assert [len(m.message) for m in task.report().messages] == [64 * 1024]


async def test_inputs_are_a_copy() -> None:
    given = {"deep": {"list": [1]}}
    content = "def main(p):\n    p['params']['o']['deep']['list'].append(2)\n    return p['params']['o']"
    task = fg.start(scripted(content), {"a": 1, "o": given})
    await task.wait(30)
    assert task.report().reports["c"].snapshots[0].outputs == {"deep": {"list": [1, 2]}}
    assert task.report().inputs["o"] == given == {"deep": {"list": [1]}}


@pytest.mark.parametrize(
    ("content", "language", "message"),
    [
        (None, None, "Code content is required"),
        ("  ", None, "Code content is required"),
        ("x", "javascript", 'Unsupported code language "javascript" (only "python" is supported)'),
        ("def mian(p):\n    return 1", "python", "Code execution failed: main function is required in the script"),
        ("def main(p:\n    return 1", None, "Code execution failed: Code compile failed: "),
        ("def main(p):\n    raise ValueError('no')", None, "Code execution failed: ValueError: no"),
        (
            "def main(p):\n    return {1}",
            None,
            "Code execution failed: TypeError: Object of type set is not JSON serializable",
        ),
        (
            "def main(p):\n    return float('nan')",
            None,
            "Code execution failed: ValueError: Out of range float values are not JSON compliant: nan",
        ),
        ("def main(p):\n    def f():\n        f()\n    f()", None, "Code execution failed: RecursionError"),
    ],
)
async def test_what_is_wrong_with_a_script_is_told(content: str | None, language: str | None, message: str) -> None:
    assert (await error_of(content, language)).startswith(message)


@promise("flowgram.code")
@pytest.mark.parametrize(
    "attempt",
    [
        "import socket",
        "import subprocess",
        "import os\n    return os.environ['PATH']",
        "import os\n    return os.listdir('/')",
        "return open('/etc/passwd').read()",
        "return open('{path}', 'w').write('x')",
        "import pathlib\n    return pathlib.Path('/etc/passwd').read_text()",
        "return ().__class__.__bases__[0].__subclasses__()",
        "return eval(\"open('/etc/passwd').read()\")",
        "return __import__('os')",
        "import urllib.request",
        "import ctypes",
        "import pyflue",
    ],
)
async def test_nothing_outside_can_be_reached(attempt: str, tmp_path: Path) -> None:
    path = tmp_path / "made"
    message = await error_of(f"def main(p):\n    {attempt.format(path=path)}\n    return 1")
    assert message.startswith("Code execution failed: ")
    assert not path.exists()


@promise("flowgram.code")
@pytest.mark.parametrize(
    ("attempt", "told"),
    [
        ("while True:\n        pass", "Code execution exceeded 0.4s timeout"),
        ("x = 'a' * (10 * 1024 ** 3)", "MemoryError"),
        ("x = []\n    while True:\n        x.append('a' * 1000000)", "MemoryError"),
        ("x = 9 ** (10 ** 9)", "MemoryError"),
        ("x = 1\n    while True:\n        x = x * 3 + 1", ""),
        ("import time\n    time.sleep(100)", "Code execution exceeded 0.4s timeout"),
        ("x = []\n    for _ in range(40):\n        x = [x, x]\n    return x", ""),
        ("x = []\n    for _ in range(40):\n        x = [x, x]\n    print(x)", ""),
        ("x = []\n    for _ in range(5000):\n        x = [x]\n    return x", "RecursionError"),
        ("return list(range(200_000))", "the result is larger than 1,048,576 characters of JSON"),
        ("return 'x' * 2_000_000", "the result is larger than 1,048,576 characters of JSON"),
        ("return [0] * 1000 + ['x' * 1_000_000, 100_000 * [0]]", "the result is larger than"),
        ("raise ValueError('x' * 2_000_000)", "ValueError: xxx"),
        ("raise ValueError([1] * 1000)", "exceptions can only be called with"),
        ("print('x' * 1000000)\n    while True:\n        print('x' * 100000)", "Code execution exceeded 0.4s timeout"),
    ],
)
async def test_what_does_not_end_is_ended_and_the_event_loop_goes_on(attempt: str, told: str) -> None:
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            before = time.thread_time()
            await asyncio.sleep(0.002)
            longest = max(longest, time.thread_time() - before)

    async with asyncio.timeout(10):
        watching = asyncio.create_task(watch())
        message = await error_of(f"def main(p):\n    {attempt}\n    return 1", timeoutMs=400, memoryMb=64)
        watching.cancel()
    assert told in message
    assert len(message) < 20_000
    assert longest < 0.05  # of this thread's own time: others on the machine do not count


async def test_a_result_of_the_largest_size_comes_back_whole() -> None:
    assert await value_of("def main(p):\n    return list(range(120_000))") == {"result": list(range(120_000))}
    assert await value_of("def main(p):\n    return 'ä' * 1_048_574") == {"result": "ä" * 1_048_574}


async def test_a_script_cannot_change_how_its_result_comes_back() -> None:
    message = await error_of("import json\njson.dumps = lambda *a, **k: [1]\ndef main(p):\n    return 1")
    assert "no __dict__ for setting new attributes" in message
    shadowed = "json = _json = _value = 3\ndef str(*a):\n    return [1]\ndef main(p):\n    return {'x': 5}"
    assert await value_of(shadowed) == {"x": 5}


async def test_a_cancelled_script_has_its_worker_killed() -> None:
    task = fg.start(scripted("def main(p):\n    while True:\n        pass"), {"a": 1})
    async with asyncio.timeout(10):
        while task.report().reports.get("c") is None:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        task.cancel()
        began = time.monotonic()
        with pytest.raises(fg.GraphCancelled):
            await task.wait()
        assert time.monotonic() - began < 5
        assert await value_of("def main(p):\n    return 1") == {"result": 1}


async def test_limits_that_cannot_be_meant_are_refused() -> None:
    assert (
        await error_of("def main(p):\n    return 1", timeoutMs=0) == 'Code "timeoutMs" must be a number above 0, got 0'
    )


async def test_without_the_interpreter_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *more: Any) -> Any:
        if name == "pydantic_monty":
            raise ImportError(name)
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", missing)
    assert (await error_of("def main(p):\n    return 1")).endswith("Install it: pip install 'pyflue[code]'.")
