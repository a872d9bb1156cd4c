"""The code node: Python of the graph's author, in an interpreter of its own that has no host.

`pydantic-monty` (the extra `pyflue[code]`) runs it in a worker process, with limits of time and memory. The script has
a function `main(p)`, which may be async; `p["params"]` are the node's inputs. Nothing of this process can be reached:
the interpreter has no files, no network and no imports beyond its own few modules. A node that is cancelled has its
worker killed.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

from ... import codec
from ...errors import InvalidJson
from ..document import as_object
from ..exceptions import NodeError, text_of
from ..executing import Call, ExecutionResult

TIMEOUT_S = 60.0
MEMORY_BYTES = 128 * 1024**2
_MOST_MEMORY_BYTES = 1024**3
_PRINTED_CHARS = 64 * 1024
#: Largest result, as JSON. Reading a larger one would hold up the event loop, in whichever thread it is done.
LIMIT_CHARS = 1024**2
#: What comes after the script. A few lines can make a value that is endless when it is written out (`x = [x, x]`), so
#: it is written out in there, under the limits, and what comes back is a piece of text, whatever `main` returns.
_LAST = """
import json as _json
_value = {call}
f"{{_json.dumps(_value, ensure_ascii=False, allow_nan=False)}}"[:{most}]
"""
#: Modules that scripts of flowgram-runtime use without an import, and how they come to have them here.
_OFFERED = re.compile(r"\b(?:math|random)\b")
_OFFER = """
try:
    {name}
except NameError:
    import {name}
"""
#: How many scripts run at once; more wait.
WORKERS = 4
_MAIN = re.compile(r"^(?:(?P<is_async>async\s+)?def\s+main\b|main\s*(?::[^=\n]*)?=)", re.MULTILINE)
_TIME_IS_UP = re.compile(r"time limit exceeded|sleep limit")


async def execute_code(call: Call) -> ExecutionResult:
    """Run the script of a code node."""
    script = call.node.data.get("script")
    fields = as_object(script)
    language = fields.get("language") or "python"
    if language != "python":
        raise NodeError(f'Unsupported code language "{language}" (only "python" is supported)')
    content = fields.get("content")
    if not isinstance(content, str) or not content.strip():
        raise NodeError("Code content is required")
    found = _MAIN.search(content)
    if found is None:
        raise NodeError("Code execution failed: main function is required in the script")
    timeout_s = _limit(fields.get("timeoutMs"), 1000, TIMEOUT_S, TIMEOUT_S, "timeoutMs")
    memory = _limit(fields.get("memoryMb"), 1 / 1024**2, MEMORY_BYTES, _MOST_MEMORY_BYTES, "memoryMb")
    last = "".join(_OFFER.format(name=name) for name in sorted(set(_OFFERED.findall(content))))
    last += _LAST.format(call="await main(p)" if found["is_async"] else "main(p)", most=LIMIT_CHARS + 1)
    script_run = _ScriptRun(f"{content}\n{last}", {"params": call.inputs}, timeout_s, int(memory))
    value = await script_run.wait()
    printed = script_run.printed()
    if printed:
        call.run.log(call.node, printed)
    return ExecutionResult(cast("dict[str, Any]", value) if isinstance(value, dict) else {"result": value})


class _ScriptRun:
    """One run of a script in a worker process, watched by a thread."""

    def __init__(self, code: str, p: dict[str, Any], timeout_s: float, memory_bytes: int) -> None:
        self._code = code
        self._p = p
        self._timeout_s = timeout_s
        self._memory_bytes = memory_bytes
        self._pid: int | None = None
        self._is_cancelled = False
        self._printed: list[str] = []
        self._printed_chars = 0

    async def wait(self) -> Any:
        """The value of the script's `main`.

        Raises:
            NodeError
        """
        work = asyncio.get_running_loop().run_in_executor(_threads(), self._run)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            self._is_cancelled = True
            self._kill()
            work.add_done_callback(_retrieved)
            with contextlib.suppress(Exception):
                await asyncio.wait([work], timeout=2)
            raise

    def printed(self) -> str:
        return "".join(self._printed)

    def _run(self) -> Any:
        """In a thread."""
        if self._is_cancelled:
            return None
        try:
            import pydantic_monty as monty
        except ImportError as error:
            raise NodeError(
                "The code node needs the package pydantic-monty, which is not installed. "
                "Install it: pip install 'pyflue[code]'."
            ) from error
        limits: monty.ResourceLimits = {
            "max_feed_duration_secs": self._timeout_s,
            "max_total_sleep_secs": self._timeout_s,
            "max_memory": self._memory_bytes,
        }
        try:
            with _pool().checkout(script_name="script.py", limits=limits) as session:
                self._pid = session.worker_pid
                try:
                    return _value(session.feed_run(self._code, inputs={"p": self._p}, print_callback=self._print))
                finally:
                    self._pid = None
        except monty.MontySyntaxError as error:
            raise NodeError(f"Code execution failed: Code compile failed: {text_of(error)}") from None
        except monty.MontyCrashedError:
            raise NodeError("Code execution failed: the interpreter was ended") from None
        except monty.MontyError as error:
            text = text_of(error)
            if _TIME_IS_UP.search(text):
                raise NodeError(f"Code execution exceeded {self._timeout_s:g}s timeout") from None
            raise NodeError(f"Code execution failed: {text}") from None
        except (TypeError, ValueError, OverflowError, RecursionError, RuntimeError) as error:
            raise NodeError(f"Code execution failed: {text_of(error)}") from None

    def _print(self, stream: str, text: str) -> None:
        left = _PRINTED_CHARS - self._printed_chars
        if left > 0:
            self._printed.append(text[:left])
            self._printed_chars += len(text)

    def _kill(self) -> None:
        pid = self._pid
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _value(text: str) -> Any:
    """What a script's JSON stands for.

    Raises:
        NodeError
    """
    if len(text) > LIMIT_CHARS:
        raise NodeError(f"Code execution failed: the result is larger than {LIMIT_CHARS:,} characters of JSON")
    try:
        return codec.decode(text.encode(), "The result of the code")
    except InvalidJson as error:
        raise NodeError(f"Code execution failed: {error}") from error


def _retrieved(work: asyncio.Future[Any]) -> None:
    if not work.cancelled():
        work.exception()


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=WORKERS, thread_name_prefix="pyflue-code")


@functools.cache
def _pool() -> Any:
    """The workers, started when the first script runs."""
    import pydantic_monty as monty

    # Scripts end by their own limit, or a second later by the pool's; the deadline is for a worker that does neither.
    pool = monty.Monty(min_processes=1, max_processes=WORKERS, request_timeout=2 * TIMEOUT_S + 5)
    pool.__enter__()
    atexit.register(pool.__exit__, None, None, None)
    return pool


def _limit(value: Any, divisor: float, default: float, most: float, name: str) -> float:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
        raise NodeError(f'Code "{name}" must be a number above 0, got {value!r}')
    return min(value / divisor, most)
