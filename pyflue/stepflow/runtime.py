"""`StepflowRuntime`: runs flows in this process, on an event loop in a thread of its own.

It implements the `StepflowExecutor` protocol of `executor.py`, as `StepflowClient` does, so programs can use either.
The loop is its own because a runtime is started and used from programs that are not async, or that have several loops
one after the other, and because components must not be held up by what else its users do. Where runs are kept is said
by `stateStore` in the config: in memory (`memory_runs.py`), or in a journal, by an engine (`runs.py`).
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..engine import loops
from .backend import Backend, NewRun, RunRefused, RunStatus
from .config import StepflowConfig, default_config, find_config, read_config
from .environments import environment_for
from .exceptions import DocumentMalformed, FlowMalformed
from .executor import ComponentInfo, FlowResult, LogEntry, RestartPolicy, ValidationResult
from .memory_runs import MemoryBackend
from .plugins.port import Plugin
from .results import FlowGiven, flow_value, inputs_of, refused, result_of, unreadable, validation_of

if TYPE_CHECKING:
    from .client import StepflowClient
    from .sdk.server import StepflowServer

T = TypeVar("T")

_LIMIT_BYTES = 8 * 1024**2
#: The code of the failure of runs that were not begun.
_REFUSED = 400
#: A backend is asked again after this time whether a run has ended.
_WAIT_S = 3600.0
_LOG_LINES = 1000
_STOPPED = "The runtime has stopped."


class StepflowRuntime:
    """Flows in this process. Made by `start`; ends with `stop`, with the `with` block, or with the process.

    ```python
    async with StepflowRuntime.start("stepflow-config.yml") as runtime:
        result = await runtime.run("hello-workflow.yaml", {"name": "World"})
    ```

    Its methods may be called from any event loop.
    """

    def __init__(self, config: StepflowConfig, *, plugins: Mapping[str, Plugin], port: int | None) -> None:
        self._config = config
        self._plugins = plugins
        self._port = port
        self._logs: deque[LogEntry] = deque(maxlen=_LOG_LINES)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._started: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._on_crash: Callable[[Exception], None] | None = None
        self._failure: Exception | None = None
        self._environ: Mapping[str, str] = {}
        self._stopping = asyncio.Event()
        #: It was stopped, perhaps before there was a loop that could be told.
        self._is_stopped = False
        self._client: StepflowClient | None = None
        #: What callers wait for.
        self._asked: set[concurrent.futures.Future[Any]] = set()
        self._asking = threading.Lock()

    # Life

    @classmethod
    def start(
        cls,
        config_path: str | Path | None = None,
        *,
        port: int | None = None,
        env: Mapping[str, str] | None = None,
        inherit_env: bool = True,
        log_config: Any = None,
        restart_policy: RestartPolicy = RestartPolicy.NEVER,
        max_restarts: int = 3,
        startup_timeout: float = 30.0,
        on_crash: Callable[[Exception], None] | None = None,
        servers: Mapping[str, StepflowServer] | None = None,
    ) -> StepflowRuntime:
        """Start a runtime and return when it can be used. Also a context manager, with and without `async`.

        Without `config_path` the config of the current folder is used, if there is one, else the built-in components
        are there. With `port` the HTTP API listens there, on this machine only (0: the system chooses).
        `env` is what `${VAR}` in the config means, on top of the environment unless `inherit_env` is false. `servers`
        are plugins of components in this process, by the names that routes use; without routes to them a name is also
        their prefix (`/name/…`). There is no process of its own that could crash: `log_config`, `restart_policy`
        and `max_restarts` are taken for the sake of programs that pass them; `on_crash` is told if the thread ends.

        Raises:
            ConfigInvalid: the config cannot be used. OSError: the port is taken. TimeoutError.
        """
        import os

        path = Path(config_path) if config_path is not None else find_config(Path.cwd())
        config = default_config(Path.cwd()) if path is None else read_config(path)
        runtime = cls(_with_servers(config, list(servers or {})), plugins=_plugins(servers or {}), port=port)
        runtime._environ = {**(os.environ if inherit_env else {}), **(env or {})}
        runtime._on_crash = on_crash
        runtime._begin(startup_timeout)
        return runtime

    @classmethod
    async def start_async(cls, config_path: str | Path | None = None, **options: Any) -> StepflowRuntime:
        """As `start`, without holding up the caller's event loop."""
        return await asyncio.to_thread(lambda: cls.start(config_path, **options))

    def stop(self, timeout: float = 5.0) -> None:
        """Cancel what goes on, end all plugins, and return. May be called twice.

        Raises:
            TimeoutError: it took longer.
        """
        self._is_stopped = True
        loop, thread = self._loop, self._thread
        if loop is not None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._stopping.set)
        if thread is None or thread is threading.current_thread():
            return
        thread.join(timeout)
        if thread.is_alive():
            raise TimeoutError(f"The runtime did not stop within {timeout:g} s.")
        atexit.unregister(self.stop)

    async def stop_async(self, timeout: float = 5.0) -> None:
        """As `stop`, without holding up the caller's event loop."""
        if self._client is not None:
            await self._client.close()
        await asyncio.to_thread(self.stop, timeout)

    def __enter__(self) -> StepflowRuntime:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    async def __aenter__(self) -> StepflowRuntime:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop_async()

    def __repr__(self) -> str:
        return f"<StepflowRuntime {self.url}{'' if self.is_alive else ' stopped'}>"

    # What it is

    @property
    def url(self) -> str:
        """The address of its HTTP API; `embedded:` if it does not listen."""
        return "embedded:" if self._port is None else f"http://127.0.0.1:{self._port}"

    @property
    def port(self) -> int | None:
        """Where it listens."""
        return self._port

    @property
    def client(self) -> StepflowClient:
        """A client for its HTTP API.

        Raises:
            RuntimeError: it was started without a port.
        """
        if self._port is None:
            raise RuntimeError("This runtime does not listen: start it with port=0 to have a client for it.")
        if self._client is None:
            from .client import StepflowClient

            self._client = StepflowClient(self.url)
        return self._client

    @property
    def is_alive(self) -> bool:
        """Whether it can be used."""
        is_there = self._thread is not None and self._thread.is_alive()
        return is_there and self._failure is None and not self._stopping.is_set()

    @property
    def crashed(self) -> bool:
        """Whether its thread has ended by an error."""
        return self._failure is not None

    def get_recent_logs(self, limit: int = 100) -> list[LogEntry]:
        """What it did last, the oldest first."""
        return list(self._logs)[-limit:] if limit > 0 else []

    # What runs flows (`StepflowExecutor`)

    async def run(
        self,
        flow: FlowGiven,
        input: Any,  # noqa: A002  (the word of the protocol)
        overrides: Mapping[str, Any] | None = None,
        *,
        variables: Mapping[str, Any] | None = None,
    ) -> FlowResult:
        """Run a flow and wait for its result. A flow that cannot be run is a failed result, too.

        A caller that is cancelled cancels the run. The output of a batch is `{"value": [output, …]}`.

        Raises:
            FileNotFoundError: there is no such file.
        """
        try:
            value = flow_value(flow)
        except (DocumentMalformed, FlowMalformed) as error:
            return refused(unreadable(error))
        return await self._there(self._run(value, input, overrides, variables))

    async def submit(
        self,
        flow: FlowGiven,
        input: Any,  # noqa: A002  (as above)
        overrides: Mapping[str, Any] | None = None,
        *,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """Start a run and return its id at once.

        Raises:
            ValueError: the flow cannot be run; RunRefused: not with this; FileNotFoundError.
        """
        value = flow_value(flow)

        async def submit() -> str:
            validation, flow_id = await self._store(value)
            if flow_id is None:
                raise ValueError("; ".join(found.message for found in validation.errors))
            return await self._backend.submit(
                NewRun(flow_id=flow_id, inputs=inputs_of(input), overrides=overrides, variables=variables)
            )

        return await self._there(submit())

    async def get_result(self, run_id: str) -> FlowResult:
        """The result of a run; waits for its end.

        Raises:
            RunNotFound
        """
        return await self._there(self._result(run_id))

    async def validate(self, flow: FlowGiven) -> ValidationResult:
        """Look a flow over without running it.

        Raises:
            FileNotFoundError
        """
        try:
            value = flow_value(flow)
        except (DocumentMalformed, FlowMalformed) as error:
            return unreadable(error)
        return (await self._there(self._store(value, dry_run=True)))[0]

    async def list_components(self) -> list[ComponentInfo]:
        """What flows can call. Starts plugins that have not been used yet."""
        found = await self._there(self._backend.components())
        return [
            ComponentInfo(
                path=one.path,
                description=one.description,
                input_schema=None if one.input_schema is None else dict(one.input_schema),
                output_schema=None if one.output_schema is None else dict(one.output_schema),
            )
            for one in found.components
        ]

    # On its own loop

    async def _run(
        self, value: Any, given: Any, overrides: Mapping[str, Any] | None, variables: Mapping[str, Any] | None
    ) -> FlowResult:
        validation, flow_id = await self._store(value)
        if flow_id is None:
            return refused(validation)
        new = NewRun(flow_id=flow_id, inputs=inputs_of(given), overrides=overrides, variables=variables)
        try:
            run_id = await self._backend.submit(new)
        except RunRefused as error:
            return FlowResult.failed(_REFUSED, str(error))
        try:
            return await self._result(run_id)
        except asyncio.CancelledError:
            from ..errors import RunFinished

            with contextlib.suppress(RunFinished):
                await self._backend.cancel(run_id)
            raise

    async def _store(self, value: Any, *, dry_run: bool = False) -> tuple[ValidationResult, str | None]:
        try:
            stored = await self._backend.store_flow(value, dry_run=dry_run)
        except FlowMalformed as error:
            return unreadable(error), None
        return validation_of(stored.flow_id, stored.diagnostics), stored.flow_id

    async def _result(self, run_id: str) -> FlowResult:
        while not await self._backend.wait(run_id, _WAIT_S):
            if self._stopping.is_set():
                # The run goes on when the store is opened again.
                raise RuntimeError(_STOPPED)
        run = await self._backend.run(run_id)
        items = await self._backend.items(run_id)
        is_cancelled = run.summary.status is RunStatus.CANCELLED
        self._note("info", f"run {run_id} {run.summary.status.value}", run_id=run_id)
        return result_of([item.outcome for item in items], run_id=run_id, is_cancelled=is_cancelled)

    async def _there(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something on the runtime's own loop."""
        # The lock: what is begun after the loop's last turn would never be done, and its caller wait for ever.
        with self._asking:
            if not self.is_alive or self._loop is None:
                work.close()
                raise RuntimeError(_STOPPED)
            asked = asyncio.run_coroutine_threadsafe(work, self._loop)
            self._asked.add(asked)
        asked.add_done_callback(self._asked.discard)
        try:
            return await asyncio.wrap_future(asked)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # It was not the caller who was cancelled, but the work, by the end of the loop.
            raise RuntimeError(_STOPPED) from None

    def _begin(self, timeout_s: float) -> None:
        self._thread = threading.Thread(target=self._live, name="stepflow runtime", daemon=True)
        self._thread.start()
        # The thread must not be in the middle of something while the interpreter is taken down.
        atexit.register(self.stop)
        try:
            self._started.result(timeout_s)
        except TimeoutError:
            self.stop()
            raise TimeoutError(f"The runtime did not start within {timeout_s:g} s.") from None
        except BaseException:
            self._thread.join()
            atexit.unregister(self.stop)
            raise

    def _live(self) -> None:
        try:
            try:
                loops.run(self._serve(), loop_factory=_loop_factory())
            finally:
                self._let_go()
        except BaseException as error:  # noqa: BLE001  (the end of the thread: whoever uses the runtime is told)
            failure = _crash_of(error)
            if not self._started.done():
                self._started.set_exception(failure)
                return
            self._failure = failure
            self._note("error", f"{type(failure).__name__}: {failure}")
            if self._on_crash is not None:
                self._on_crash(failure)

    def _let_go(self) -> None:
        """Nothing is done here any more: nobody may wait for it."""
        with self._asking:
            self._loop = None
            asked = list(self._asked)
        for one in asked:
            one.cancel()

    async def _serve(self) -> None:
        self._stopping = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        if self._is_stopped:
            self._stopping.set()
        async with contextlib.AsyncExitStack() as stack:
            self._backend = await stack.enter_async_context(open_backend(self._config, self._plugins, self._environ))
            if self._port is not None:
                from .serving import listening

                self._port = await stack.enter_async_context(listening(self._backend, self._port))
            for warning in self._config.warnings:
                self._note("warning", warning)
            self._note("info", "started")
            self._started.set_result(None)
            await self._stopping.wait()
        self._note("info", "stopped")

    def _note(self, level: str, message: str, *, run_id: str | None = None) -> None:
        self._logs.append(LogEntry(timestamp=datetime.now(UTC), level=level, message=message, run_id=run_id))


@contextlib.asynccontextmanager
async def open_backend(
    config: StepflowConfig, plugins: Mapping[str, Plugin], environ: Mapping[str, str], *, adopts: bool = True
) -> AsyncGenerator[Backend]:
    """What runs flows with a config: in memory, or on an engine with the journal that the config names.

    With `adopts` it also takes up the runs of that journal that nobody drives.

    Raises:
        ConfigInvalid; what `open_journal` raises.
    """
    store = config.state_store
    if store is None or store.type == "inMemory":
        backend = MemoryBackend(environment_for(config, plugins, environ), limit_bytes=_LIMIT_BYTES)
        try:
            yield backend
        finally:
            await backend.close()
        return
    from .stored import open_stored

    async with open_stored(config, plugins, environ, adopts=adopts) as stored:
        yield stored


def _crash_of(error: BaseException) -> Exception:
    """What ended the loop, as those are told who have not asked to be ended themselves."""
    if isinstance(error, Exception):
        return error
    # What a component has scheduled may raise `SystemExit`, which asyncio hands on to whoever runs the loop.
    failure = RuntimeError(f"The event loop was ended by {error!r}.")
    failure.__cause__ = error
    return failure


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The quicker event loop, where there is one."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _plugins(servers: Mapping[str, StepflowServer]) -> dict[str, Plugin]:
    if not servers:
        return {}
    from .builtin import PythonPlugin

    return {name: PythonPlugin(name, server) for name, server in servers.items()}


def _with_servers(config: StepflowConfig, names: list[str]) -> StepflowConfig:
    """The config with a route to each server that none leads to."""
    from dataclasses import replace

    from .routing import RouteRule

    routed = {rule.plugin for rules in config.routes.values() for rule in rules}
    more = {f"/{name}/{{*component}}": (RouteRule(plugin=name),) for name in names if name not in routed}
    return replace(config, routes={**config.routes, **more}) if more else config
