"""Facts of the machine and the libraries that figures depend on; nothing that tells whose machine it is."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any


def facts() -> dict[str, Any]:
    """What is written beside the figures. To be asked before measuring."""
    import apsw

    return {
        "processors": os.cpu_count(),
        "processor": _processor(),
        #: Runnable processes just before: well above 0, something else was measured too.
        "load": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "sqlite": apsw.sqlite_lib_version(),
        "file_system": _file_system(Path(__file__)),
        "libraries": {
            name: version(name) for name in ("pyflue", "starlette", "uvicorn", "uvloop", "httptools", "msgspec", "apsw")
        },
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _file_system(path: Path) -> str:
    """The type of the file system a file is on, such as `ext4`; empty where /proc does not tell."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return ""
    holding = [fields for fields in mounts if path.is_relative_to(fields[1])]
    return max(holding, key=lambda fields: len(fields[1]))[2] if holding else ""
