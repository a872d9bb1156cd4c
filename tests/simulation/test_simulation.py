"""The engine and the journal's SQL under thousands of seeds: crashes, faults, clock jumps, two servers, any order.

`PYFLUE_TEST_SEED=123` repeats one seed; `PYFLUE_TEST_SEEDS=20000` runs more of them.
"""

from __future__ import annotations

import gc
import os
import random
import time

import pytest

from tests.promises import promise

from .loop import burial
from .seeds import simulate, trace_of

SEED = int(os.environ.get("PYFLUE_TEST_SEED", "0"))
SEEDS = int(os.environ.get("PYFLUE_TEST_SEEDS", "2000"))
PARTS = 4


@promise("R2", "R3", "F02", "F03")
@pytest.mark.timeout(60 + SEEDS)
@pytest.mark.parametrize("part", range(PARTS))
def test_whatever_happens_runs_end_as_their_programs_do_and_nothing_is_done_twice(part: int) -> None:
    first = SEED or random.randrange(10**9)
    count = 1 if SEED else SEEDS // PARTS
    began_at = time.monotonic()
    with burial():
        for seed in range(first, first + count):
            try:
                simulate(seed).disk.close()
            except BaseException as error:
                print(f"PYFLUE_TEST_SEED={seed}: {type(error).__name__} {error}")
                raise
            if not seed % 50:
                gc.collect()
    print(f"seeds {first} to {first + count - 1}: {count / (time.monotonic() - began_at):.0f}/s")


def test_a_seed_always_tells_the_same_story() -> None:
    with burial():
        for seed in range(10):
            first, second = simulate(seed), simulate(seed)
            assert trace_of(first) == trace_of(second)
            first.disk.close()
            second.disk.close()
