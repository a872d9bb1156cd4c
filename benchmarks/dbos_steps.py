"""The workflow of `three_steps.py` on DBOS, SQLite as its system database: runs per second, by as many callers.

Run as a script under the interpreter of the environment that holds DBOS (`three_steps.py` does); imports nothing of
PyFlue. Plain functions, each caller a thread that calls the workflow: of the forms tried (async functions on one loop,
smaller pools of connections) it is the fastest. The configuration is the default one, but for the log level.

SQLite is used as DBOS sets it up, with a rollback journal; with `--wal` its file is in WAL mode before DBOS opens it.
DBOS has no setting for that, but the file remembers. Both ways a commit is on disk when it returns.

    python dbos_steps.py folder --callers 64 --seconds 5
"""

from __future__ import annotations

import argparse
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

from dbos import DBOS  # pyright: ignore[reportMissingImports, reportUnknownVariableType]


@DBOS.step()  # pyright: ignore[reportUnknownMemberType, reportUntypedFunctionDecorator]
def add_one(number: int) -> int:
    return number + 1


@DBOS.workflow()  # pyright: ignore[reportUnknownMemberType, reportUntypedFunctionDecorator]
def three_steps(number: int) -> int:
    first = add_one(number)
    second = add_one(first)
    return add_one(second)


def measure(callers: int, seconds: float) -> float:
    """Runs per second; a run counts when its result is there."""
    finished: list[int] = []
    started = time.monotonic()

    def caller() -> None:
        while time.monotonic() - started < seconds:
            finished.append(three_steps(1))

    threads = [threading.Thread(target=caller) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.monotonic() - started
    if set(finished) != {4}:
        raise SystemExit(f"Runs of DBOS ended with {set(finished)}.")
    return len(finished) / elapsed


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--wal", action="store_true")
    options = parser.parse_args()
    path: Path = options.folder / "dbos.sqlite"
    if options.wal:
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA journal_mode=wal")
        connection.close()
    config: Any = {"name": "benchmark", "system_database_url": f"sqlite:///{path}", "log_level": "WARNING"}
    DBOS(config=config)
    DBOS.launch()  # pyright: ignore[reportUnknownMemberType]
    print(round(measure(options.callers, options.seconds), 1))
    DBOS.destroy()  # pyright: ignore[reportUnknownMemberType]


if __name__ == "__main__":
    main()
