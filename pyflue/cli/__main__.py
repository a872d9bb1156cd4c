"""`python -m pyflue.cli`: the same command, for where no script is installed."""

from __future__ import annotations

from .app import main

if __name__ == "__main__":
    main(prog_name="pyflue")
