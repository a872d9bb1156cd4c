"""Searching for a regular expression in files, in bounded time whatever the expression.

Called in a worker thread by every sandbox's `grep`. It is ripgrep's language (no look-around, no back references),
searched by bashkit's `rg`, whose engine takes linear time; Python's own `re` takes exponential time for some patterns,
and nothing can stop a thread in it.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from .port import Match

if TYPE_CHECKING:
    from bashkit import FileSystem

TIMEOUT_S = 2.0
#: Longest line shown; what is matched in the rest is found, but not shown.
LINE_CHARACTERS = 2000

_BATCH_BYTES = 4 * 1024 * 1024
_MOST_FILES = 2000
#: bashkit keeps no more than 1 MiB of output; if more came, the batch is searched file by file.
_LARGEST_FILE_BYTES = 9_000_000
_MOST_PATTERN_CHARACTERS = 4096


def search(pattern: str, files: Iterable[tuple[str, bytes]], limit: int) -> list[Match]:
    """Lines of the files that a pattern is found in, in the files' order, `limit` at most.

    Raises:
        ValueError: not a regular expression. TimeoutError: it took longer than 2 s.
    """
    if "\0" in pattern or len(pattern) > _MOST_PATTERN_CHARACTERS:
        raise ValueError(f"A pattern has at most {_MOST_PATTERN_CHARACTERS} characters, and no NUL among them.")
    deadline = time.monotonic() + TIMEOUT_S
    found: list[Match] = []
    batch: list[tuple[str, bytes]] = []
    size = 0
    _search_batch(pattern, [], 1, deadline)  # so that a bad pattern is told even where there is nothing to search
    for path, data in files:
        if time.monotonic() > deadline:
            raise TimeoutError(f"The search took longer than {TIMEOUT_S:g} s.")
        if b"\0" in data[:8192]:
            continue
        batch.append((path, data))
        size += len(data)
        if size >= _BATCH_BYTES or len(batch) >= _MOST_FILES:
            found += _search_batch(pattern, batch, limit - len(found), deadline)
            batch, size = [], 0
            if len(found) >= limit:
                return found
    return found + _search_batch(pattern, batch, limit - len(found), deadline)


def _search_batch(pattern: str, batch: list[tuple[str, bytes]], limit: int, deadline: float) -> list[Match]:
    from bashkit import FileSystem

    files = FileSystem()
    for index, (_, data) in enumerate(batch):
        # Bytes that are no text would make it a binary file, which shows no lines.
        files.write_file(f"/f{index}", data[:_LARGEST_FILE_BYTES].decode(errors="replace").encode())
    names = [f"f{index}" for index in range(len(batch))]
    output, is_cut = _rg(pattern, files, names, limit, deadline)
    if not is_cut:
        return _matches(output, batch)[:limit]
    found: list[Match] = []
    for name in names:
        output, _ = _rg(pattern, files, [name], limit, deadline)
        found += _matches(output, batch)
        if len(found) >= limit:
            break
    return found[:limit]


def _rg(pattern: str, files: FileSystem, names: list[str], limit: int, deadline: float) -> tuple[str, bool]:
    from bashkit import Bash

    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError(f"The search took longer than {TIMEOUT_S:g} s.")
    bash = Bash(cwd="/searched", timeout_seconds=left)
    bash.mount("/searched", files)
    where = " ".join(names) or "/dev/null"
    quoted = shlex.quote(pattern)
    result = bash.execute_sync(
        f"rg --line-number --with-filename --no-heading --color never -m {max(limit, 1)} -e {quoted} -- {where}"
    )
    if result.error is not None and "timeout" in result.error:
        raise TimeoutError(f"The search took longer than {TIMEOUT_S:g} s.")
    if result.exit_code not in (0, 1) or result.error is not None:
        why = (result.error or result.stderr).removeprefix("rg: ").strip()
        raise ValueError(f"The pattern {pattern[:200]!r} is not a regular expression that can be searched for: {why}")
    return result.stdout, result.stdout_truncated


def _matches(output: str, batch: list[tuple[str, bytes]]) -> list[Match]:
    found: list[Match] = []
    for shown in output.split("\n"):
        name, _, rest = shown.partition(":")
        line, colon, text = rest.partition(":")
        if colon and line.isdigit():
            path = batch[int(name[1:])][0]
            cut = text if len(text) <= LINE_CHARACTERS else f"{text[:LINE_CHARACTERS]}…"
            found.append(Match(path=path, line=int(line), text=cut.removesuffix("\r")))
    return found
