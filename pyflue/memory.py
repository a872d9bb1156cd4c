"""When the garbage collector looks for cycles, in processes of ours that do nothing else than serve.

Used by whoever starts such a process, once it has loaded what it needs. Knows nothing of what runs there.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import sys
from pathlib import Path

#: So many new objects are made before the garbage collector looks at them.
_NEW_OBJECTS = 150_000
#: It also looks at them when the process has grown by so much.
_GROWN_BYTES = 128 * 1024**2
_LOOK_EVERY_S = 1.0

_STATM = Path("/proc/self/statm")


def settle_memory() -> None:
    """Let the garbage collector look for cycles in what is worth it, in a process that only serves a project.

    What is loaded by now stays: without this, every full collection looks through all of it again (17 ms each here,
    several times a second under load, and the slowest requests were those that met one). And what is under way is no
    garbage: a few hundred turns of models are tens of thousands of objects, which a collection after every 700 new ones
    (the usual) looked through again and again, for a third of all the time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS, 10, 10)


def watch_memory(loop: asyncio.AbstractEventLoop) -> None:
    """Look for cycles as well whenever the process takes much more memory than before: few objects may hold it all.

    On the loop, because what is freed may belong to it; for as long as it runs.
    """
    most = _taken_bytes()

    def look() -> None:
        nonlocal most
        if _taken_bytes() > most + _GROWN_BYTES:
            gc.collect()
            most = max(most, _taken_bytes())
        loop.call_later(_LOOK_EVERY_S, look)

    loop.call_later(_LOOK_EVERY_S, look)


def _taken_bytes() -> int:
    """How much memory the process takes; where the system does not tell, the most that it ever took."""
    try:
        return int(_STATM.read_bytes().split()[1]) * os.sysconf("SC_PAGESIZE")
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
