"""`StepflowClient`: talks to a server that has stepflow's HTTP API, ours or another's of that generation.

It implements the `StepflowExecutor` protocol of `executor.py`, as `StepflowRuntime` does, and has a method for each
operation of the API besides. Answers are the values of `backend.py`. The HTTP library is imported with the first
request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote, urlsplit

from .. import codec
from ..errors import InvalidJson
from .backend import (
    FlowView,
    ItemCounts,
    ItemView,
    RunDetails,
    RunStatus,
    RunSummary,
    StartedRun,
    StepStatus,
    StepView,
    StoredFlow,
)
from .exceptions import DocumentMalformed, FlowMalformed
from .executor import ComponentInfo, Diagnostic, FlowResult, ValidationResult
from .outcome import Outcome, from_wire
from .results import FlowGiven, flow_value, inputs_of, refused, result_of, unreadable, validation_of

if TYPE_CHECKING:
    import httpx2

#: How long one request waits for the end of a run; then it is asked again.
_WAIT_S = 60.0
#: How long a server waits if it is not told.
_SERVER_WAIT_S = 300.0
_INVALID = 400


class StepflowClientError(Exception):
    """A request that was refused, or got no answer.

    `status_code` is that of the answer, None if there was none; `details` is what the answer's body held.
    """

    def __init__(self, message: str, status_code: int | None = None, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.status_code = status_code
        self.details = details


class StepflowClient:
    """Runs flows on a server.

    ```python
    async with StepflowClient("http://localhost:7837") as client:
        result = await client.run("hello-workflow.yaml", {"name": "World"})
        print(result.output)
    ```

    Flows are files (YAML or JSON), or the values that such files hold. An `input` that is a list is a batch, one run
    with an item for each of its values. A request is given up after `timeout` seconds without an answer; waiting for
    the end of a run has no limit (`asyncio.timeout` gives it one; the run goes on).
    """

    def __init__(
        self,
        base_url: str = "http://localhost:7837",
        timeout: float = 30.0,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in {"http", "https"} or not parts.netloc:
            raise ValueError(f"{base_url!r} is no address of a server: it looks like http://localhost:7837.")
        self._url = base_url.rstrip("/")
        self._timeout_s = timeout
        self._headers = {**({} if token is None else {"Authorization": f"Bearer {token}"}), **(headers or {})}
        self._transport = transport
        self._http: httpx2.AsyncClient | None = None

    @property
    def url(self) -> str:
        """The server's address."""
        return self._url

    async def close(self) -> None:
        """Close the connections. The client can be used again; it opens new ones."""
        if self._http is not None:
            http, self._http = self._http, None
            await http.aclose()

    async def __aenter__(self) -> StepflowClient:
        return self

    async def __aexit__(self, *args: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<StepflowClient {self._url}>"

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

        The output of a batch is `{"value": [output, …]}`, if no item failed.

        Raises:
            StepflowClientError: the server refused, or cannot be reached.
            FileNotFoundError: there is no such file.
        """
        flow_id, validation = await self._keep(flow)
        if flow_id is None:
            return refused(validation)
        try:
            started = await self.create_run(
                flow_id, input, overrides=overrides, variables=variables, timeout_secs=_WAIT_S
            )
        except StepflowClientError as error:
            if error.status_code != _INVALID:
                raise
            # Overrides or variables that do not fit the flow.
            said = None if error.details is None else error.details.get("message")
            return FlowResult.failed(_INVALID, str(said or error))
        if started.outcome is not None:
            return result_of([started.outcome], run_id=started.run_id)
        return await self.get_result(started.run_id)

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
            StepflowClientError: the flow cannot be run, too.
            FileNotFoundError
        """
        flow_id, validation = await self._keep(flow)
        if flow_id is None:
            raise StepflowClientError(
                "Workflow validation failed", _INVALID, {"errors": [found.message for found in validation.errors]}
            )
        started = await self.create_run(flow_id, input, overrides=overrides, variables=variables, wait=False)
        return started.run_id

    async def get_result(self, run_id: str) -> FlowResult:
        """The result of a run; waits for its end.

        Raises:
            StepflowClientError
        """
        details = await self.get_run(run_id, wait=True)
        while not details.summary.status.is_final:
            details = await self.get_run(run_id, wait=True)
        outcomes = [item.outcome for item in await self.get_run_items(run_id)]
        return result_of(outcomes, run_id=run_id, is_cancelled=details.summary.status is RunStatus.CANCELLED)

    async def validate(self, flow: FlowGiven) -> ValidationResult:
        """Look a flow over without running it.

        Raises:
            StepflowClientError, FileNotFoundError
        """
        return (await self._keep(flow, dry_run=True))[1]

    async def list_components(self, *, include_schemas: bool = True) -> list[ComponentInfo]:
        """What flows can call.

        Raises:
            StepflowClientError
        """
        answer = await self._ask("GET", "/components", query={"includeSchemas": include_schemas})
        return [_component(found) for found in _rows(answer, "components")]

    # What else the server does

    async def health_check(self) -> dict[str, Any]:
        """What the server says of itself: `status`, `timestamp`, `version`."""
        return await self._ask("GET", "/health")

    async def store_flow(self, flow: FlowGiven, *, dry_run: bool = False) -> StoredFlow:
        """Keep a flow; without an id if a diagnostic is fatal.

        Raises:
            StepflowClientError, FileNotFoundError; FlowMalformed, DocumentMalformed: the file is no flow.
        """
        body = {"flow": flow_value(flow), **({"dryRun": True} if dry_run else {})}
        answer = await self._ask("POST", "/flows", body)
        return StoredFlow(
            flow_id=answer.get("flowId"),
            diagnostics=answer.get("diagnostics") or {},
            is_stored=bool(answer.get("stored", answer.get("flowId") is not None)),
        )

    async def get_flow(self, flow_id: str) -> FlowView:
        """A stored flow."""
        answer = await self._ask("GET", f"/flows/{_in_path(flow_id)}")
        return FlowView(flow=answer["flow"], flow_id=answer["flowId"], examples=tuple(_rows(answer, "allExamples")))

    async def delete_flow(self, flow_id: str) -> None:
        """Answered by servers, which keep flows all the same."""
        await self._ask("DELETE", f"/flows/{_in_path(flow_id)}")

    async def create_run(
        self,
        flow_id: str,
        input: Any,  # noqa: A002  (the word of the API)
        *,
        overrides: Mapping[str, Any] | None = None,
        variables: Mapping[str, Any] | None = None,
        debug: bool = False,
        max_concurrency: int | None = None,
        wait: bool = True,
        timeout_secs: float | None = None,
    ) -> StartedRun:
        """Run a stored flow. With `wait` it is answered at the run's end, or after `timeout_secs` (300 by default)."""
        body: dict[str, Any] = {"flowId": flow_id, "input": inputs_of(input), "wait": wait}
        optional = {
            "overrides": overrides,
            "variables": variables,
            "debug": debug or None,
            "maxConcurrency": max_concurrency,
            "timeoutSecs": timeout_secs,
        }
        body |= {name: value for name, value in optional.items() if value is not None}
        waited_s = _SERVER_WAIT_S if timeout_secs is None else timeout_secs
        answer = await self._ask("POST", "/runs", body, patience_s=waited_s if wait else 0.0)
        result = answer.get("result")
        return StartedRun(
            run_id=answer["runId"],
            status=RunStatus(answer["status"]),
            outcome=None if result is None else from_wire(result),
        )

    async def get_run(self, run_id: str, *, wait: bool = False, timeout_secs: float = _WAIT_S) -> RunDetails:
        """A run; with `wait` at its end, or after `timeout_secs`."""
        query = {"wait": True, "timeoutSecs": timeout_secs} if wait else {}
        patience_s = timeout_secs if wait else 0.0
        answer = await self._ask("GET", f"/runs/{_in_path(run_id)}", query=query, patience_s=patience_s)
        return RunDetails(
            summary=_summary(answer),
            inputs=answer.get("inputs") or [],
            overrides=answer.get("overrides"),
            variables=answer.get("variables"),
        )

    async def get_run_items(self, run_id: str) -> list[ItemView]:
        """What became of each input of a run."""
        answer = await self._ask("GET", f"/runs/{_in_path(run_id)}/items")
        return [
            ItemView(
                item_index=item["itemIndex"],
                status=RunStatus(item["status"]),
                outcome=_outcome(item),
            )
            for item in _rows(answer, "items")
        ]

    async def get_run_steps(self, run_id: str) -> dict[str, StepView]:
        """The steps of a run by their ids."""
        answer = await self._ask("GET", f"/runs/{_in_path(run_id)}/steps")
        return {
            step_id: StepView(
                step_index=step["stepIndex"],
                step_id=step["stepId"],
                component=step.get("component") or "",
                status=StepStatus(step["status"]),
                outcome=_outcome(step),
            )
            for step_id, step in cast("Mapping[str, Any]", answer["steps"]).items()
        }

    async def get_run_flow(self, run_id: str) -> FlowView:
        """The flow of a run."""
        answer = await self._ask("GET", f"/runs/{_in_path(run_id)}/flow")
        return FlowView(flow=answer["flow"], flow_id=answer["flowId"])

    async def list_runs(
        self,
        *,
        status: RunStatus | str | None = None,
        flow_id: str | None = None,
        flow_name: str | None = None,
        limit: int | None = None,
        offset: int | None = None,
    ) -> list[RunSummary]:
        """Runs, newest first."""
        query = {
            "status": None if status is None else RunStatus(status).value,
            "flowId": flow_id,
            "flowName": flow_name,
            "limit": limit,
            "offset": offset,
        }
        return [_summary(run) for run in _rows(await self._ask("GET", "/runs", query=query), "runs")]

    async def cancel_run(self, run_id: str) -> RunSummary:
        """End a run."""
        return _summary(await self._ask("POST", f"/runs/{_in_path(run_id)}/cancel"))

    async def delete_run(self, run_id: str) -> None:
        """Remove a run that has ended."""
        await self._ask("DELETE", f"/runs/{_in_path(run_id)}")

    # Parts

    async def _keep(self, flow: FlowGiven, *, dry_run: bool = False) -> tuple[str | None, ValidationResult]:
        """Store a flow: its id unless something about it is fatal, and what was found."""
        try:
            stored = await self.store_flow(flow, dry_run=dry_run)
        except (DocumentMalformed, FlowMalformed) as error:
            return None, unreadable(error)
        except StepflowClientError as error:
            if error.status_code != _INVALID:
                raise
            return None, ValidationResult(valid=False, diagnostics=_refusals(error))
        return stored.flow_id, validation_of(stored.flow_id, stored.diagnostics)

    async def _ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, Any] | None = None,
        patience_s: float = 0.0,
    ) -> dict[str, Any]:
        """What the server answers; `patience_s` is how much longer than usual that may take.

        Raises:
            StepflowClientError
        """
        import httpx2

        timeout = httpx2.Timeout(self._timeout_s, read=self._timeout_s + patience_s)
        params = {name: _query_text(value) for name, value in (query or {}).items() if value is not None}
        content, headers = None, dict(self._headers)
        if body is not None:
            content = bytes(memoryview(codec.encode_value(body, "The request")))
            headers["Content-Type"] = "application/json"
        try:
            response = await self._client().request(
                method,
                f"{self._url}/api/v1{path}",
                params=params,
                content=content,
                headers=headers,
                timeout=timeout,
            )
        except httpx2.RequestError as error:
            said = f": {error}" if str(error) else ""
            raise StepflowClientError(f"No answer from {self._url} ({type(error).__name__}{said})") from error
        return _answer(method, path, response)

    def _client(self) -> httpx2.AsyncClient:
        if self._http is None:
            import httpx2

            self._http = httpx2.AsyncClient(transport=self._transport)
        return self._http


def _answer(method: str, path: str, response: httpx2.Response) -> dict[str, Any]:
    value: Any = {}
    if response.content:
        try:
            value = codec.decode(response.content, "The answer")
        except InvalidJson:
            value = None
    fields = cast("dict[str, Any]", value) if isinstance(value, dict) else None
    if not response.is_success:
        said: Any = None if fields is None else fields.get("message")
        if fields is not None and isinstance(fields.get("error"), dict):  # the server's own form, before a route
            said = fields["error"].get("message")
        text = said if isinstance(said, str) else f"HTTP {response.status_code}"
        raise StepflowClientError(f"{method} {path}: {text}", response.status_code, fields)
    if fields is None:
        raise StepflowClientError(f"{method} {path}: the answer is no JSON object", response.status_code)
    return fields


def _refusals(error: StepflowClientError) -> list[Diagnostic]:
    """Why a server takes something for no flow; each problem as `$.steps[0].input: what is wrong`."""
    layers = _rows(error.details or {}, "stack")
    texts = [str(layer.get("error")) for layer in layers] or [str((error.details or {}).get("message", error))]
    found: list[Diagnostic] = []
    for text in texts:
        place, separator, message = text.partition(": ")
        is_placed = bool(separator) and place.startswith("$")
        found.append(Diagnostic("fatal", message if is_placed else text, place if is_placed else None))
    return found


def _component(found: Mapping[str, Any]) -> ComponentInfo:
    return ComponentInfo(
        path=str(found.get("component", found.get("path", ""))),
        description=found.get("description"),
        input_schema=found.get("inputSchema", found.get("input_schema")),
        output_schema=found.get("outputSchema", found.get("output_schema")),
    )


def _summary(run: Mapping[str, Any]) -> RunSummary:
    counted = cast("Mapping[str, int]", run.get("items") or {})
    return RunSummary(
        run_id=run["runId"],
        flow_id=run["flowId"],
        flow_name=run.get("flowName"),
        flow_label=run.get("flowLabel"),
        status=RunStatus(run["status"]),
        items=ItemCounts(
            total=counted.get("total", 0),
            completed=counted.get("completed", 0),
            running=counted.get("running", 0),
            failed=counted.get("failed", 0),
            cancelled=counted.get("cancelled", 0),
        ),
        created_at=run["createdAt"],
        completed_at=run.get("completedAt"),
        root_run_id=run.get("rootRunId"),
        parent_run_id=run.get("parentRunId"),
    )


def _outcome(shown: Mapping[str, Any]) -> Outcome | None:
    result = shown.get("result")
    return None if result is None else from_wire(result)


def _rows(answer: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    return cast("list[dict[str, Any]]", answer.get(name) or [])


def _query_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _in_path(text: str) -> str:
    return quote(text, safe="")
