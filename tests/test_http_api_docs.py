"""`docs/http-api.md` lists exactly the routes, errors and close codes there are."""

from __future__ import annotations

import re
from pathlib import Path

from pyflue import errors
from pyflue.server.errors import STATUSES
from pyflue.server.operations import OPERATIONS
from pyflue.server.security import HEALTH_PATH, scope_needed
from pyflue.server.websocket import CloseCode

_PAGE = (Path(__file__).parent.parent / "docs" / "http-api.md").read_text(encoding="utf-8")
#: Errors that no server answers with: those of the client, and one that only a run's record names.
_NEVER_ANSWERED = {errors.Unreachable, errors.ServerAnswered, errors.RunTimedOut}


def test_the_page_lists_every_route_with_the_scope_it_needs() -> None:
    shown = set(re.findall(r"^\| `([A-Z]+) (/\S*)` \| .+ \| `?(\w+)`? \|$", _PAGE, re.MULTILINE))
    assert shown == {
        (operation.method, operation.path, _scope(operation.method, operation.path)) for operation in OPERATIONS
    }


def test_the_page_lists_every_error_a_caller_can_get_with_its_status() -> None:
    shown = re.findall(r"^\| `(\w+)` \| (\d{3}) \| .+ \|$", _PAGE, re.MULTILINE)
    assert len(shown) == len(set(shown))
    # What the table of statuses calls 500 is told to nobody; only a failed run's error has its own name.
    told = {cls for cls, status in STATUSES.items() if status != 500} - _NEVER_ANSWERED
    expected = {(cls.type, str(STATUSES[cls])) for cls in told}
    failures = {("run_failed", "500"), ("dispatch_failed", "500"), ("internal_error", "500")}
    assert set(shown) == expected | failures


def test_the_page_lists_every_close_code() -> None:
    shown = {int(code) for code in re.findall(r"^\| (1\d{3}) \| .+ \|$", _PAGE, re.MULTILINE)}
    # An internal error is no part of the protocol: uvicorn closes with it if the application breaks.
    assert shown == set(CloseCode)


def _scope(method: str, path: str) -> str:
    return "none" if path == HEALTH_PATH else scope_needed({"type": "http", "method": method}, path)
