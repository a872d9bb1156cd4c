"""What executors answer."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime

import pytest

from pyflue.stepflow import (
    ComponentInfo,
    Diagnostic,
    FlowError,
    FlowResult,
    FlowResultStatus,
    LogEntry,
    RestartPolicy,
    StepflowClient,
    StepflowExecutor,
    StepflowRuntime,
    ValidationResult,
)


@pytest.mark.parametrize(
    ("result", "expected", "claims"),
    [
        (FlowResult.success({"a": 1}), FlowResult(FlowResultStatus.SUCCESS, output={"a": 1}), (True, False, False)),
        (
            FlowResult.failed(404, "gone", {"x": 1}),
            FlowResult(FlowResultStatus.FAILED, error=FlowError(404, "gone", {"x": 1})),
            (False, True, False),
        ),
        (
            FlowResult.skipped("why"),
            FlowResult(FlowResultStatus.SKIPPED, skipped_reason="why"),
            (False, False, True),
        ),
    ],
)
def test_a_result_says_what_the_flow_came_to(
    result: FlowResult, expected: FlowResult, claims: tuple[bool, bool, bool]
) -> None:
    assert result == expected
    assert (result.is_success, result.is_failed, result.is_skipped) == claims
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.output = {}  # type: ignore[misc]


def test_a_validation_has_errors_and_warnings() -> None:
    fatal, error = Diagnostic("fatal", "two steps of one id", "$.steps[1]"), Diagnostic("error", "no field")
    warning = Diagnostic("warning", "no name")
    result = ValidationResult(valid=False, diagnostics=[warning, fatal, error])
    assert (result.errors, result.warnings) == ([fatal, error], [warning])
    assert ValidationResult(True) == ValidationResult(valid=True, diagnostics=[])


def test_the_other_records_have_the_fields_of_the_original() -> None:
    now = datetime.now(UTC)
    entry = LogEntry(timestamp=now, level="info", message="started", target="t", trace_id="a")
    assert dataclasses.asdict(entry) == {
        "timestamp": now,
        "level": "info",
        "message": "started",
        "target": "t",
        "trace_id": "a",
        "span_id": None,
        "run_id": None,
        "step_id": None,
        "extra": {},
    }
    info = ComponentInfo("/a", "Does a.", {"type": "object"}, {})
    assert (info.path, info.description, info.input_schema, info.output_schema) == (
        "/a",
        "Does a.",
        {"type": "object"},
        {},
    )
    assert [policy.value for policy in RestartPolicy] == ["never", "on_failure", "always"]


def test_client_and_runtime_are_executors() -> None:
    methods = {"url", "run", "submit", "get_result", "validate", "list_components"}
    for kind in (StepflowClient, StepflowRuntime):
        assert methods <= set(dir(kind))
    assert isinstance(StepflowClient("http://127.0.0.1:9"), StepflowExecutor)
