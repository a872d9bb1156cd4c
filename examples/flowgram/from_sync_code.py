"""Check a graph and run it, from code that is not async."""

from __future__ import annotations

from pathlib import Path

import pyflue.flowgram as fg

SCHEMA = Path(__file__).with_name("echo.json").read_text()


def main() -> None:
    print(fg.validate(SCHEMA, inputs={"msg": 3}).errors)
    print(fg.run_sync(SCHEMA, inputs={"msg": "hi"}))


if __name__ == "__main__":
    main()
