"""The isolated sandbox: a folder of this machine as `/workspace`, and programs behind namespaces (bubblewrap).

Made by `factory.py`. A command sees the system's programs and libraries, read only; its own `/tmp`, `/proc` and `/dev`;
and the workspace, the one place it can write to that lasts. It has no network unless that is allowed, no other
processes to look at, no privileges to gain, and nothing of the host's homes, secrets, sockets and services. All of it
ends with the command. The kernel is shared: against a kernel bug, this is no boundary.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...errors import SandboxUnavailable
from .hosted import HostedSandbox
from .limits import SandboxLimits
from .paths import HIDDEN
from .port import WORKSPACE
from .processes import Order, run

_INSTALL = (
    "Install bubblewrap (Debian, Ubuntu: apt install bubblewrap; Fedora: dnf install bubblewrap), or use another "
    "sandbox: sandbox='virtual' needs nothing."
)
_PERMIT = (
    "bubblewrap needs unprivileged user namespaces: see the sysctls kernel.unprivileged_userns_clone, "
    "user.max_user_namespaces and kernel.apparmor_restrict_unprivileged_userns, and the container's seccomp profile."
)
#: Links into /usr on most systems, folders on some.
_SYSTEM = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
#: What programs need of /etc. The rest may hold secrets.
_ETC = (
    "alternatives",
    "ca-certificates",
    "crypto-policies",
    "ssl",
    "pki",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "nsswitch.conf",
    "protocols",
    "services",
)
_ETC_NETWORK = ("hosts", "resolv.conf", "gai.conf")
_VARIABLES = ("LANG", "LC_ALL", "LC_CTYPE", "TZ", "TERM")
_USER_ID = "1000"
_TMP_BYTES = str(256 * 1024 * 1024)
_PROBE_S = 10.0

_proven: set[tuple[str, ...]] = set()


async def isolated_sandbox(
    root: Path,
    *,
    cwd: str = WORKSPACE,
    env: Mapping[str, str] | None = None,
    network: bool = False,
    read_only: Sequence[str | Path] = (),
    limits: SandboxLimits | None = None,
) -> HostedSandbox:
    """The sandbox of kind `isolated` in a folder. `read_only` are further folders of the host that can be read.

    Raises:
        SandboxUnavailable: bubblewrap is not installed, or may not do its work here.
    """
    program = shutil.which("bwrap") if sys.platform == "linux" else None
    if program is None:
        raise SandboxUnavailable("The sandbox 'isolated' needs bubblewrap, which is not installed here.", hint=_INSTALL)
    launcher = _Bubblewrap(program, env or {}, network=network, read_only=read_only)
    await _prove(launcher)
    return HostedSandbox("isolated", root, launcher, cwd=cwd, limits=limits)


class _Bubblewrap:
    def __init__(self, program: str, env: Mapping[str, str], *, network: bool, read_only: Sequence[str | Path]) -> None:
        self._env = dict(env)
        folders = [os.path.abspath(folder) for folder in read_only]  # noqa: PTH100  (`resolve` would follow links)
        self._walls = (program, *_walls(network=network, read_only=folders))

    @property
    def walls(self) -> tuple[str, ...]:
        return self._walls

    @property
    def shell(self) -> Sequence[str]:
        return ("/bin/bash" if os.access("/bin/bash", os.X_OK) else "/bin/sh", "-c")

    def order(
        self, argv: Sequence[str], *, env: Mapping[str, str], root_fd: int, cwd_fd: int, cwd: str
    ) -> tuple[Sequence[str], Mapping[str, str]]:
        # By its descriptor: whatever is put at the folder's path meanwhile, this is the folder that was opened.
        workspace = f"/proc/self/fd/{root_fd}"
        hidden: list[str] = []
        if os.path.isdir(f"{workspace}/{HIDDEN}"):  # noqa: PTH112  (a descriptor's path)
            hidden = ["--tmpfs", f"{WORKSPACE}/{HIDDEN}", "--remount-ro", f"{WORKSPACE}/{HIDDEN}"]
        line = [*self._walls, "--bind", workspace, WORKSPACE, *hidden, "--remount-ro", "/", "--chdir", cwd, "--", *argv]
        here = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
        return line, {
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin",
            "HOME": WORKSPACE,
            "USER": "agent",
            "LOGNAME": "agent",
            "SHELL": "/bin/sh",
            "TMPDIR": "/tmp",  # noqa: S108  (its own)
            **here,
            **self._env,
            **env,
        }


def _walls(*, network: bool, read_only: Sequence[str]) -> list[str]:
    """The arguments of bubblewrap that are the same for each command."""
    walls = ["--unshare-all", "--unshare-user", "--uid", _USER_ID, "--gid", _USER_ID, "--hostname", "sandbox"]
    if network:
        walls.append("--share-net")
    # `--new-session`: no terminal whose input could be faked. It dies with the supervisor, which dies with us.
    walls += ["--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    walls += ["--ro-bind", "/usr", "/usr"]
    for name in _SYSTEM:
        path = Path("/", name)
        if path.is_symlink():
            walls += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            walls += ["--ro-bind", str(path), str(path)]
    for name in (*_ETC, *(_ETC_NETWORK if network else ())):
        walls += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    walls += ["--proc", "/proc", "--dev", "/dev", "--size", _TMP_BYTES, "--tmpfs", "/tmp"]  # noqa: S108
    for folder in read_only:
        walls += ["--ro-bind", folder, folder]
    return walls


async def _prove(launcher: _Bubblewrap) -> None:
    """See once that bubblewrap may do this here: its failure later could not be told from the command's own."""
    if launcher.walls in _proven:
        return
    top = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        line = [*launcher.walls, "--chdir", "/", "--", "/usr/bin/env", "true"]
        result = await run(
            Order(argv=line, env={"PATH": "/usr/bin:/bin"}, cwd_fd=top, timeout_s=_PROBE_S, limits=SandboxLimits())
        )
    finally:
        os.close(top)
    if result.exit_code != 0:
        raise SandboxUnavailable(
            f"The sandbox 'isolated' cannot be made here: {result.stderr.strip()[:500]}",
            hint=_PERMIT,
        )
    _proven.add(launcher.walls)
