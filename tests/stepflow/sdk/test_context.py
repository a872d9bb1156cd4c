"""What components ask of the runtime, word for word, and what they make of the answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest

from .driver import Server, served

FLOW = {"steps": [], "output": {"$input": "$"}}
FLOW_ID = "f" * 64
ABOUT = {"trace_id": "t", "span_id": "s", "run_id": "run-1", "flow_id": FLOW_ID, "step_id": "step-1"}
SUCCESS = {"outcome": "success", "result": 1}
FAILURE = {"outcome": "failed", "error": {"code": 404, "message": "no such thing", "data": [1]}}
SKIPPED = {"outcome": "skipped", "reason": "not today"}


@pytest.fixture(scope="module")
def shared() -> Iterator[Server]:
    with served("components.py") as started:
        yield started


@pytest.fixture
def server(shared: Server) -> Server:
    shared.runtime = None
    shared.asked.clear()
    return shared


class Runtime:
    """Answers by method, and checks that each request says whose it is."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        assert params.pop("observability") == ABOUT
        self.asked.append((method, params))
        answer = self.answers.get(method.replace("/", "_"))
        if answer is None:
            return {"error": {"code": -32601, "message": f"no method {method}"}}
        return answer if "error" in answer else {"result": answer}


def run_status(*outcomes: dict[str, Any] | None, with_results: bool = True) -> dict[str, Any]:
    status: dict[str, Any] = {
        "runId": "run-2",
        "flowId": FLOW_ID,
        "flowName": "sub",
        "status": "completed",
        "items": {"total": len(outcomes), "completed": len(outcomes), "running": 0, "failed": 0, "cancelled": 0},
        "createdAt": "2026-01-01T00:00:00Z",
        "completedAt": "2026-01-01T00:00:01Z",
    }
    if with_results:
        # Not in the order of the inputs, as `byCompletion` gives them.
        status["results"] = [
            {"itemIndex": index, "status": "completed", **({} if outcome is None else {"result": outcome})}
            for index, outcome in reversed(list(enumerate(outcomes)))
        ]
    return status


def batch(*outcomes: dict[str, Any]) -> dict[str, Any]:
    details = {
        "batch_id": "batch-1",
        "flow_id": FLOW_ID,
        "flow_name": None,
        "total_runs": len(outcomes),
        "status": "running",
        "created_at": "2026-01-01T00:00:00Z",
        "completed_runs": len(outcomes),
        "running_runs": 0,
        "failed_runs": 0,
        "cancelled_runs": 0,
        "paused_runs": 0,
    }
    outputs = [
        {"batch_input_index": index, "status": "completed", "result": outcome} for index, outcome in enumerate(outcomes)
    ]
    return {"details": details, "outputs": outputs}


def use(server: Server, runtime: Runtime, *call: Any) -> Any:
    server.runtime = runtime
    return server.output("/use", list(call), observability=ABOUT)


def test_a_component_knows_where_it_is(server: Server) -> None:
    assert server.output("/where", None, observability=ABOUT, attempt=3) == {
        "session_id": None,
        "step_id": "step-1",
        "run_id": "run-1",
        "flow_id": FLOW_ID,
        "attempt": 3,
    }
    params = {"component": "/where", "input": None}
    assert server.call("components/execute", params)["result"]["output"] == {
        "session_id": None,
        "step_id": None,
        "run_id": None,
        "flow_id": None,
        "attempt": 1,
    }


def test_requests_have_ids_of_their_own_that_are_uuids(server: Server) -> None:
    server.runtime = Runtime(blobs_put={"blob_id": "b"})
    use(server, Runtime(blobs_put={"blob_id": "b"}), "put_blob", 1)
    use(server, Runtime(blobs_put={"blob_id": "b"}), "put_blob", 1)
    first, second = (request["id"] for request in server.asked)
    assert UUID(first).version == UUID(second).version == 4
    assert first != second


def test_blobs_are_put_and_got(server: Server) -> None:
    runtime = Runtime(blobs_put={"blob_id": "b" * 64}, blobs_get={"data": {"x": [1]}, "blob_type": "data"})
    assert use(server, runtime, "put_blob", {"x": [1]}) == "b" * 64
    assert use(server, runtime, "put_blob", FLOW, "flow") == "b" * 64
    assert use(server, runtime, "get_blob", "b" * 64) == {"x": [1]}
    assert runtime.asked == [
        ("blobs/put", {"data": {"x": [1]}, "blob_type": "data"}),
        ("blobs/put", {"data": FLOW, "blob_type": "flow"}),
        ("blobs/get", {"blob_id": "b" * 64}),
    ]
    assert use(server, runtime, "put_blob", 1, "picture")["raised"] == "ValueError"


def test_a_plain_function_can_use_its_context_in_a_loop_of_its_own(server: Server) -> None:
    server.runtime = Runtime(blobs_put={"blob_id": "b"})
    assert server.output("/keep_from_thread", 1, observability=ABOUT) == "b"


def test_a_blob_that_is_not_there_and_other_errors_are_told_apart(server: Server) -> None:
    runtime = Runtime(blobs_get={"error": {"code": -32011, "message": "not found"}})
    assert use(server, runtime, "get_blob", "b") == {
        "raised": "BlobNotFoundError",
        "text": "Blob 'b' not found",
        "data": {"blob_id": "b"},
    }
    runtime = Runtime(blobs_get={"error": {"code": -32012, "message": "no id", "data": "b"}})
    assert use(server, runtime, "get_blob", "b") == {
        "raised": "StepflowRuntimeError",
        "text": "blobs/get failed: no id",
        "data": {"method": "blobs/get", "code": -32012, "data": "b"},
    }
    assert use(server, Runtime(blobs_put={"unexpected": 1}), "put_blob", 1)["raised"] == "StepflowRuntimeError"


def test_a_flow_is_evaluated_by_a_run_that_is_waited_for(server: Server) -> None:
    runtime = Runtime(blobs_put={"blob_id": FLOW_ID}, runs_submit=run_status(SUCCESS))
    assert use(server, runtime, "evaluate_flow", FLOW, {"a": 1}, {"step": {"value": {}}}) == 1
    assert use(server, runtime, "evaluate_flow_by_id", FLOW_ID, None) == 1
    assert runtime.asked == [
        ("blobs/put", {"data": FLOW, "blob_type": "flow"}),
        ("runs/submit", {"flowId": FLOW_ID, "inputs": [{"a": 1}], "wait": True, "overrides": {"step": {"value": {}}}}),
        ("runs/submit", {"flowId": FLOW_ID, "inputs": [None], "wait": True}),
    ]


def test_a_runtime_that_does_not_know_runs_is_asked_in_the_older_way(server: Server) -> None:
    runtime = Runtime(flows_evaluate={"result": SUCCESS})
    assert use(server, runtime, "evaluate_flow_by_id", FLOW_ID, None, {"s": {}}) == 1
    assert runtime.asked[1:] == [("flows/evaluate", {"flow_id": FLOW_ID, "input": None, "overrides": {"s": {}}})]


@pytest.mark.parametrize(
    ("outcome", "raised"),
    [
        (FAILURE, {"raised": "StepflowFailed", "text": "no such thing", "data": [1]}),
        (SKIPPED, {"raised": "StepflowSkipped", "text": "Flow execution was skipped: not today", "data": None}),
    ],
)
def test_what_else_a_flow_came_to_is_raised(server: Server, outcome: Any, raised: Any) -> None:
    assert use(server, Runtime(runs_submit=run_status(outcome)), "evaluate_flow_by_id", FLOW_ID, None) == raised
    assert use(server, Runtime(flows_evaluate={"result": outcome}), "evaluate_flow_by_id", FLOW_ID, None) == raised


def test_several_inputs_give_values_in_their_order(server: Server) -> None:
    outcomes = [{"outcome": "success", "result": number} for number in (1, None, "three")]
    runtime = Runtime(blobs_put={"blob_id": FLOW_ID}, runs_submit=run_status(*outcomes))
    assert use(server, runtime, "evaluate_run_by_id", FLOW_ID, [1, 2, 3]) == [1, None, "three"]
    assert use(server, runtime, "evaluate_run", FLOW, [1, 2, 3], 2) == [1, None, "three"]
    assert runtime.asked[2] == (
        "runs/submit",
        {"flowId": FLOW_ID, "inputs": [1, 2, 3], "wait": True, "maxConcurrency": 2},
    )
    told = use(server, Runtime(runs_submit=run_status(SUCCESS, FAILURE)), "evaluate_run_by_id", FLOW_ID, [1, 2])
    assert told == {"raised": "StepflowFailed", "text": "Run for input 1: no such thing", "data": [1]}
    told = use(server, Runtime(runs_submit=run_status(SUCCESS, None)), "evaluate_run_by_id", FLOW_ID, [1, 2])
    assert told["raised"] == "StepflowRuntimeError"


def test_results_that_were_not_sent_with_the_answer_are_asked_for(server: Server) -> None:
    runtime = Runtime(runs_submit=run_status(SUCCESS, with_results=False), runs_get=run_status(SUCCESS))
    assert use(server, runtime, "evaluate_run_by_id", FLOW_ID, [1]) == [1]
    assert runtime.asked[1] == (
        "runs/get",
        {"runId": "run-2", "wait": True, "includeResults": True, "resultOrder": "byIndex"},
    )


def test_runs_are_submitted_and_looked_at(server: Server) -> None:
    status = run_status(SUCCESS)
    runtime = Runtime(blobs_put={"blob_id": FLOW_ID}, runs_submit=status, runs_get=status)
    expected = {
        **status,
        "flowLabel": None,
        "results": [
            {
                "itemIndex": 0,
                "status": "completed",
                "result": {**SUCCESS, "error": None, "reason": None},
                "completedAt": None,
            }
        ],
    }
    assert use(server, runtime, "submit_run", FLOW, [1]) == expected
    assert use(server, runtime, "submit_run_by_id", FLOW_ID, [1], False, 4) == expected
    assert use(server, runtime, "get_run", "run-2", True, True, "byCompletion") == expected
    assert runtime.asked[1:] == [
        ("runs/submit", {"flowId": FLOW_ID, "inputs": [1], "wait": False}),
        ("runs/submit", {"flowId": FLOW_ID, "inputs": [1], "wait": False, "maxConcurrency": 4}),
        ("runs/get", {"runId": "run-2", "wait": True, "includeResults": True, "resultOrder": "byCompletion"}),
    ]


def test_batches_are_submitted_looked_at_and_evaluated(server: Server) -> None:
    runtime = Runtime(
        blobs_put={"blob_id": FLOW_ID},
        flows_submit_batch={"batch_id": "batch-1", "total_runs": 2},
        flows_get_batch=batch(SUCCESS, SUCCESS),
    )
    assert use(server, runtime, "submit_batch", FLOW, [1, 2], 2, {"s": {}}) == "batch-1"
    assert use(server, runtime, "submit_batch_by_id", FLOW_ID, [1, 2]) == "batch-1"
    details, outputs = use(server, runtime, "get_batch", "batch-1", False, True)
    assert details == batch(SUCCESS, SUCCESS)["details"] | {"completed_at": None}
    assert [(output["batch_input_index"], output["result"]["result"]) for output in outputs] == [(0, 1), (1, 1)]
    assert use(server, runtime, "get_batch", "batch-1")[1] is None
    assert use(server, runtime, "evaluate_batch", FLOW, [1, 2]) == [1, 1]
    assert use(server, runtime, "evaluate_batch_by_id", FLOW_ID, [1, 2]) == [1, 1]
    assert runtime.asked[:4] == [
        ("blobs/put", {"data": FLOW, "blob_type": "flow"}),
        ("flows/submit_batch", {"flow_id": FLOW_ID, "inputs": [1, 2], "max_concurrency": 2, "overrides": {"s": {}}}),
        ("flows/submit_batch", {"flow_id": FLOW_ID, "inputs": [1, 2]}),
        ("flows/get_batch", {"batch_id": "batch-1", "wait": False, "include_results": True}),
    ]
    assert runtime.asked[-1] == ("flows/get_batch", {"batch_id": "batch-1", "wait": True, "include_results": True})


def test_a_runtime_that_does_not_know_batches_gets_runs(server: Server) -> None:
    runtime = Runtime(runs_submit=run_status(SUCCESS, SUCCESS), runs_get=run_status(SUCCESS, SUCCESS))
    assert use(server, runtime, "evaluate_batch_by_id", FLOW_ID, [1, 2], 2) == [1, 1]
    assert [method for method, _ in runtime.asked] == [
        "flows/submit_batch",
        "runs/submit",
        "flows/get_batch",
        "runs/get",
    ]


def test_metadata_is_that_of_the_step_unless_another_one_is_named(server: Server) -> None:
    runtime = Runtime(flows_get_metadata={"flow_metadata": {"a": 1}, "step_metadata": {"b": 2}})
    assert use(server, runtime, "get_metadata") == {"flow_metadata": {"a": 1}, "step_metadata": {"b": 2}}
    runtime.answers["flows_get_metadata"] = {"flow_metadata": {}}
    assert use(server, runtime, "get_metadata", "other") == {"flow_metadata": {}}
    assert runtime.asked == [
        ("flows/get_metadata", {"flow_id": FLOW_ID, "step_id": "step-1"}),
        ("flows/get_metadata", {"flow_id": FLOW_ID, "step_id": "other"}),
    ]


def test_what_is_no_json_is_refused_before_it_is_sent(server: Server) -> None:
    assert server.output("/keep_set", None) == "What was to be sent with blobs/put is not JSON"


def test_a_component_that_still_waits_for_the_runtime_ends_with_the_input() -> None:
    with served("components.py") as server:
        params = {"component": "/use", "input": ["get_blob", "b"]}
        server.send({"jsonrpc": "2.0", "id": 1, "method": "components/execute", "params": params})
        assert server.next()["method"] == "blobs/get"
        server.end_input()
        assert server.wait() == 0
