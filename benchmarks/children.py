"""`ctx.call` round trips per second: a child is accepted, runs, ends, and its parent goes on, one after the other.

From one parent alone, whose round trips cannot share an fsync, and from 64 at once. Run in a process of its own.
"""

from __future__ import annotations

import argparse

from pyflue import codec

from .in_process import rate

_MANY = 64
#: Round trips of one parent; its own start and end are a small part of it.
_CALLS = 50


async def measure(*, seconds: float) -> dict[str, float]:
    """The figures `children.one_parent.per_second` and `children.64_parents.per_second`."""
    return {
        "children.one_parent.per_second": await _round_trips(1, seconds),
        f"children.{_MANY}_parents.per_second": await _round_trips(_MANY, seconds),
    }


async def _round_trips(parents: int, seconds: float) -> float:
    runs = await rate("calls_children", {"count": _CALLS}, callers=parents, seconds=seconds)
    return round(_CALLS * runs, 1)


def main() -> None:
    import uvloop

    parser = argparse.ArgumentParser(prog="python -m benchmarks.children")
    parser.add_argument("--seconds", type=float, default=5.0, help="per series (5)")
    print(codec.encode(uvloop.run(measure(seconds=parser.parse_args().seconds))).decode())


if __name__ == "__main__":
    main()
