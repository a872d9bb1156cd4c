"""`python -m pyflue`: the command, for where no script is installed."""

from __future__ import annotations

from .cli import main

if __name__ == "__main__":
    main(prog_name="pyflue")
