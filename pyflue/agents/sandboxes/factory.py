"""Sandboxes by name, or by a factory of the user's.

The harness calls `make_sandbox` with what an agent's `sandbox=` says. `virtual()`, `local()` and `isolated()` make
factories with settings of their own. Further kinds are found under the entry point group `pyflue.sandboxes`: each entry
is a factory.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ...errors import AgentInvalid, PyFlueError, SandboxUnavailable
from .limits import SandboxLimits
from .policy import SandboxPolicy
from .port import WORKSPACE, Sandbox

if TYPE_CHECKING:
    from .virtual import Command

_ENTRY_POINTS = "pyflue.sandboxes"
BUILT_IN = ("virtual", "local", "isolated")


class SandboxFactory(Protocol):
    """Makes a sandbox, now or awaited. It is given those of these arguments that it has parameters for.

    `root` is a folder of this machine that is the sandbox's own if it wants one (it is not made yet), `policy` what the
    model may do, `env` what commands see, `commands` the agent's own commands by name, `cwd` where paths count from.
    """

    def __call__(
        self,
        *,
        root: Path,
        policy: SandboxPolicy,
        env: Mapping[str, str],
        commands: Mapping[str, Command],
        limits: SandboxLimits,
        cwd: str,
    ) -> Sandbox | Awaitable[Sandbox]: ...


async def make_sandbox(
    spec: str | SandboxFactory,
    *,
    root: Path,
    policy: SandboxPolicy | None = None,
    env: Mapping[str, str] | None = None,
    commands: Mapping[str, Command] | None = None,
    limits: SandboxLimits | None = None,
    cwd: str = WORKSPACE,
) -> Sandbox:
    """The sandbox that a name or a factory stands for. It never becomes another kind because one is not to be had.

    Raises:
        AgentInvalid: there is no kind of this name. SandboxUnavailable: it cannot be made here.
    """
    factory = _named(spec) if isinstance(spec, str) else spec
    given: dict[str, Any] = {
        "root": root,
        "policy": policy or SandboxPolicy(),
        "env": dict(env or {}),
        "commands": dict(commands or {}),
        "limits": limits or SandboxLimits(),
        "cwd": cwd,
    }
    try:
        made: Any = factory(**_wanted(factory, given))
        return await made if inspect.isawaitable(made) else made
    except PyFlueError:
        raise
    except Exception as error:  # the factory is the user's own code
        raise SandboxUnavailable(f"The sandbox {_shown(spec)} could not be made: {error}") from error


def virtual(
    *,
    env: Mapping[str, str] | None = None,
    network: Sequence[str] | bool | None = None,
    commands: Mapping[str, Command] | None = None,
) -> SandboxFactory:
    """The virtual sandbox; `network` are the addresses that its commands may reach (`https://example.com`).

    `commands` are further commands of its shell by name: functions of the arguments and the standard input, sync or
    async, that return text, None, or output, error output and exit code.
    """
    more, addresses, own = dict(env or {}), network, dict(commands or {})

    def make(
        *,
        root: Path,
        policy: SandboxPolicy,
        env: Mapping[str, str],
        commands: Mapping[str, Command],
        limits: SandboxLimits,
        cwd: str,
    ) -> Sandbox:
        from .virtual import VirtualSandbox

        allowed = policy.network if addresses is None else addresses
        return VirtualSandbox(
            cwd=cwd, env={**more, **env}, commands={**own, **commands}, network=allowed, limits=limits
        )

    return make


def local(cwd: str | Path | None = None, env: Mapping[str, str] | None = None) -> SandboxFactory:
    """The local sandbox in a folder of this machine; without one, in a folder that PyFlue keeps for it."""
    folder, more = cwd, dict(env or {})

    def make(
        *,
        root: Path,
        policy: SandboxPolicy,
        env: Mapping[str, str],
        commands: Mapping[str, Command],
        limits: SandboxLimits,
        cwd: str,
    ) -> Sandbox:
        from .local import local_sandbox

        return local_sandbox(_root(folder, root), cwd=cwd, env={**more, **env}, limits=limits)

    return make


def isolated(
    cwd: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    *,
    network: bool | None = None,
    read_only: Sequence[str | Path] = (),
) -> SandboxFactory:
    """The isolated sandbox in a folder of this machine; `read_only` are further folders that it can read."""
    folder, more, is_open = cwd, dict(env or {}), network

    def make(
        *,
        root: Path,
        policy: SandboxPolicy,
        env: Mapping[str, str],
        commands: Mapping[str, Command],
        limits: SandboxLimits,
        cwd: str,
    ) -> Awaitable[Sandbox]:
        from .isolated import isolated_sandbox

        return isolated_sandbox(
            _root(folder, root),
            cwd=cwd,
            env={**more, **env},
            network=policy.network if is_open is None else is_open,
            read_only=read_only,
            limits=limits,
        )

    return make


def _root(folder: str | Path | None, root: Path) -> Path:
    if folder is None:
        return root
    given = Path(folder)
    if not given.is_dir():
        raise SandboxUnavailable(f"There is no folder {given}, which is to be the sandbox.", hint="Make it first.")
    return given


def _named(name: str) -> SandboxFactory:
    match name:
        case "virtual":
            return virtual()
        case "local":
            return local()
        case "isolated":
            return isolated()
        case _:
            return _plugged_in(name)


def _plugged_in(name: str) -> SandboxFactory:
    from importlib.metadata import entry_points

    entries = entry_points(group=_ENTRY_POINTS)
    for entry in entries:
        if entry.name == name:
            try:
                return entry.load()
            except Exception as error:  # a package of somebody else's
                raise SandboxUnavailable(f"The sandbox {name!r} could not be imported: {error}") from error
    known = ", ".join([*BUILT_IN, *sorted(entry.name for entry in entries)])
    raise AgentInvalid(f"Unknown sandbox provider: {name!r}.", hint=f"Known: {known}.")


def _wanted(factory: SandboxFactory, given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The arguments that a factory has parameters for."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return given
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return given
    names = {parameter.name for parameter in parameters}
    return {name: value for name, value in given.items() if name in names}


def _shown(spec: str | SandboxFactory) -> str:
    return repr(spec) if isinstance(spec, str) else repr(getattr(spec, "__qualname__", type(spec).__name__))
