"""How much a sandbox may hold and use. Made by the caller from settings; the adapters keep to it."""

from __future__ import annotations

from dataclasses import dataclass

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxLimits:
    """Sizes, counts and times. For files, the virtual sandbox has smaller ones of its own: see `virtual.py`."""

    #: Largest file that is read or written as a whole.
    file_bytes: int = 64 * _MIB
    #: Most that is kept of each of a command's two outputs; the middle is left out.
    output_bytes: int = _MIB
    #: Memory of all of a command's processes together (host sandboxes).
    memory_bytes: int = 2048 * _MIB
    #: Largest file a command may write (host sandboxes).
    written_file_bytes: int = 1024 * _MIB
    #: Most processes a command may have at once (host sandboxes).
    processes: int = 256
    #: Most files each of these processes may have open (host sandboxes).
    open_files: int = 1024
    #: How long a command that was told to end may take before it is killed (host sandboxes).
    grace_s: float = 1.0
    #: Most files and folders that a `grep` or `glob` looks at.
    searched_entries: int = 100_000
    #: Most bytes that a `grep` reads.
    searched_bytes: int = 256 * _MIB
