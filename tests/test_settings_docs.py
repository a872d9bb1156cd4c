"""`docs/settings.md` shows exactly the settings there are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pyflue.settings import describe

_PAGE = Path(__file__).parent.parent / "docs" / "settings.md"
_ROW = re.compile(r"\| `(\w+\.\w+)` \| (?:`(\w+)`|-) \| (.+?) \| (.+) \|")


def test_the_settings_page_lists_every_setting_with_its_variable_default_and_meaning() -> None:
    rows = _ROW.findall(_PAGE.read_text(encoding="utf-8"))
    assert rows == [(name, variable, _shown(default), doc) for name, variable, default, doc in describe()]


def _shown(default: Any) -> str:
    if default in ("", ()):
        return "empty"
    if isinstance(default, str):
        return f"`{default}`"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    whole = int(default) if default == int(default) else default
    return f"`{whole}`" if whole == 2024 else f"`{whole:,}`"  # nobody writes a port with a comma
