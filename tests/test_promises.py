"""Every promise has a test, and every test names promises that exist."""

from __future__ import annotations

import re
from pathlib import Path

from tests.promises import PROMISES

_MARK = re.compile(r"@promise\(([^)]*)\)")


def test_every_promise_has_a_test() -> None:
    shown: set[str] = set()
    for file in Path(__file__).parent.rglob("test_*.py"):
        for ids in _MARK.findall(file.read_text(encoding="utf-8")):
            shown.update(re.findall(r'"([^"]+)"', ids))
    assert shown == set(PROMISES)
