"""The local sandbox: a folder of this machine, and its own programs, run as the user that PyFlue runs as.

Made by `factory.py`. Its file methods stay inside of the folder whatever a path or a link says. Its shell is a real
one: a command can do what this user can do. It gets an environment of its own (an allow-list), limits, and an end; it
is *not* kept from the user's other files or from the network. For that there is `isolated.py`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from .hosted import HostedSandbox
from .limits import SandboxLimits
from .port import WORKSPACE

#: What a command sees of PyFlue's own environment.
ALLOWED_VARIABLES = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "HOSTNAME",
    "SHELL",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TERM",
    "TMPDIR",
    "TMP",
    "TEMP",
)


def local_sandbox(
    root: Path,
    *,
    cwd: str = WORKSPACE,
    env: Mapping[str, str] | None = None,
    limits: SandboxLimits | None = None,
) -> HostedSandbox:
    """The sandbox of kind `local` in a folder, which is made when it is first used."""
    return HostedSandbox("local", root, _HostLauncher(env or {}), cwd=cwd, limits=limits)


class _HostLauncher:
    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = dict(env)

    @property
    def shell(self) -> Sequence[str]:
        return ("/bin/bash" if os.access("/bin/bash", os.X_OK) else "/bin/sh", "-c")

    def order(
        self, argv: Sequence[str], *, env: Mapping[str, str], root_fd: int, cwd_fd: int, cwd: str
    ) -> tuple[Sequence[str], Mapping[str, str]]:
        allowed = {name: os.environ[name] for name in ALLOWED_VARIABLES if name in os.environ}
        return argv, {"PATH": os.defpath, **allowed, **self._env, **env}
