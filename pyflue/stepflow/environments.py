"""Which config a flow runs with, and the plugins of it that runs share.

One object for an engine, among its resources: component servers are started by the first run that needs them, used by
all, and ended with the engine. A config file that was changed is read again by the next run, and so it is if a script
was changed that it starts; runs under way keep what they have, and its plugins end with the last of them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from ..engine.resources import Resources
from .config import StepflowConfig, default_config, find_config, read_config
from .plugins.environment import Environment, Factory
from .plugins.port import Plugin

_KEY = "stepflow.environments"
#: What a file was like when it was read: time of change, size, which file it is.
_Stamp: TypeAlias = tuple[int, int, int] | None
#: Arguments of programs with one of these endings are what runs, not what it works on.
_SCRIPTS = frozenset({".py", ".js", ".mjs", ".cjs", ".ts", ".rb", ".sh"})


@dataclass(slots=True, kw_only=True)
class _Shared:
    environment: Environment
    stamp: _Stamp
    #: The scripts that its programs are, and what they were like.
    scripts: Mapping[Path, _Stamp]
    users: int = 0
    is_replaced: bool = False


class Environments:
    """Plugins by the config that names them."""

    def __init__(
        self,
        fixed: StepflowConfig | None = None,
        plugins: Mapping[str, Plugin] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """With `fixed` every flow runs with that config, wherever it lies; the rest as for `environment_for`."""
        self._fixed = fixed
        self._plugins = plugins
        self._environ = environ
        self._shared: dict[Path | None, _Shared] = {}

    @contextlib.asynccontextmanager
    async def use(self, folder: Path, root: Path | None, config: Path | None = None) -> AsyncGenerator[Environment]:
        """The environment of flows in a folder of a project, while a run uses it; `config` is one that was named.

        Raises:
            ConfigInvalid: there is a config, and it cannot be used.
        """
        shared, replaced = self._find(folder, root, config)
        # From here on it is in use: the config may be changed again while the plugins of the old one end.
        shared.users += 1
        try:
            if replaced is not None and not replaced.users:
                await replaced.environment.close()
            yield shared.environment
        finally:
            shared.users -= 1
            if shared.is_replaced and not shared.users:
                await shared.environment.close()

    def _find(self, folder: Path, root: Path | None, named: Path | None) -> tuple[_Shared, _Shared | None]:
        """The environment of a folder's config as it is now, and what it has taken the place of."""
        path = None if self._fixed is not None else named or find_config(folder, root)
        stamp = None if path is None else _stamp(path)
        # Without a config the folder is the working directory of the built-in components.
        key = path or (None if self._fixed is not None else folder)
        known = self._shared.get(key)
        if known is not None and known.stamp == stamp and all(_stamp(one) == was for one, was in known.scripts.items()):
            return known, None
        config = self._fixed or _read(path, folder)
        made = self._shared[key] = _Shared(
            environment=environment_for(config, self._plugins, self._environ),
            stamp=stamp,
            # Plugins that were given would end with the environment that is replaced.
            scripts={} if self._plugins else _scripts(config),
        )
        if known is not None:
            known.is_replaced = True
        return made, known

    async def close(self) -> None:
        """End all plugins."""
        shared = list(self._shared.values())
        self._shared.clear()
        await asyncio.gather(*(one.environment.close() for one in shared), return_exceptions=True)


def environments_of(
    resources: Resources,
    fixed: StepflowConfig | None = None,
    plugins: Mapping[str, Plugin] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Environments:
    """The environments of an engine. The first to ask may fix the config."""
    return resources.get(_KEY, lambda: Environments(fixed, plugins, environ))


def environment_for(
    config: StepflowConfig, plugins: Mapping[str, Plugin] | None = None, environ: Mapping[str, str] | None = None
) -> Environment:
    """The plugins of a config, ours among them. Nothing is started.

    `plugins` are further ones that are ready; `environ` is what variables in the config mean.

    Raises:
        ConfigInvalid: the config has a plugin of a type that there is not.
    """
    from .builtin import BuiltinPlugin, ProjectPlugin, PythonPlugin

    factories: Mapping[str, Factory] = {
        "builtin": lambda entry: BuiltinPlugin(entry.folder),
        "pyflue": lambda _: ProjectPlugin(),
        "python": PythonPlugin.of_entry,
    }
    return Environment(config, factories=factories, plugins=plugins, environ=environ)


def _read(path: Path | None, folder: Path) -> StepflowConfig:
    return default_config(folder) if path is None else read_config(path)


def _scripts(config: StepflowConfig) -> dict[Path, _Stamp]:
    """The scripts that are started by name, as they are now; what they import is not looked at."""
    named = [Path(entry.folder, arg) for entry in config.plugins.values() for arg in (entry.command, *entry.args)]
    return {path: _stamp(path) for path in named if path.suffix in _SCRIPTS}


def _stamp(path: Path) -> _Stamp:
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_size, status.st_ino)
