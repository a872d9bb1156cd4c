"""What the decorators write down, what is checked, when, and by which words."""

from __future__ import annotations

from typing import Any

import pytest

from pyflue.agentflow import (
    END,
    StateValidationError,
    WorkflowDefinitionError,
    export_workflow_graph,
    step,
    workflow,
)
from pyflue.agentflow.executor import WorkflowExecutor
from pyflue.agentflow.models import StepDefinition, WorkflowDefinition
from pyflue.agentflow.validation import (
    check_workflow,
    validate_initial_state,
    validate_step_definition,
    validate_step_method_signature,
    validate_workflow_definition,
)


def test_step_gives_back_the_same_function_with_its_definition() -> None:
    def plain(self: Any) -> None: ...

    assert step(plain) is plain
    assert plain.__agentflow_step_definition__ == StepDefinition("plain", "plain", -1)  # type: ignore[attr-defined]

    options: dict[str, Any] = {
        "retries": 2,
        "retry_on": (ValueError,),
        "retry_delay": 0.5,
        "description": "d",
        "routes": {"a": END},
        "requires_approval": True,
        "approval_message": "m",
        "approval_metadata": {"k": 1},
        "retry_backoff": 2.0,
        "retry_max_delay_s": 9.0,
        "retry_jitter": 0.1,
        "timeout_s": 3.0,
        "approval_timeout_s": 4.0,
    }
    named = step(name="other", **options)(plain)
    assert named.__agentflow_step_definition__ == StepDefinition("other", "plain", -1, **options)
    assert step(name="")(plain).__agentflow_step_definition__.name == "plain"


def test_workflow_numbers_the_steps_in_the_order_of_the_class_and_adds_its_methods() -> None:
    @workflow(name="Named", retries=1, retry_on=(ValueError,), retry_delay=0.1)
    class Flow:
        @step
        def second_in_name_first_in_class(self) -> None: ...

        def helper(self) -> None: ...

        @step(name="b")
        def a(self) -> None: ...

    definition: WorkflowDefinition = Flow.__agentflow_workflow_definition__  # type: ignore[attr-defined]
    assert definition == WorkflowDefinition(
        "Named",
        [
            StepDefinition("second_in_name_first_in_class", "second_in_name_first_in_class", 0),
            StepDefinition("b", "a", 1),
        ],
        1,
        (ValueError,),
        0.1,
    )
    assert all(callable(getattr(Flow, name)) for name in ("run", "resume", "arun", "aresume"))


def test_a_run_of_the_class_itself_is_left_alone() -> None:
    @workflow
    class Own:
        def run(self) -> str:
            return "mine"

        @step
        def only(self) -> int:
            return 1

    assert Own().run() == "mine"
    assert WorkflowExecutor().run(Own(), {}).steps[0].output == 1
    assert callable(Own.resume)  # type: ignore[attr-defined]


def test_an_undecorated_subclass_runs_the_steps_of_its_parent_with_its_own_methods() -> None:
    @workflow
    class Parent:
        @step
        def one(self) -> str:
            return "parent"

    class Child(Parent):
        def one(self) -> str:
            return "child"

    result = Child().run({})  # type: ignore[attr-defined]
    assert (result.workflow_name, result.steps[0].output) == ("Parent", "child")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"retries": -1}, "Workflow retry count must be zero or greater."),
        ({"retry_on": [ValueError]}, "Workflow retry_on must be a tuple of exception classes."),
        ({"retry_on": (1,)}, "Workflow retry_on must be a tuple of exception classes."),
        ({"retry_delay": -0.1}, "Workflow retry_delay must be zero or greater."),
        ({"retry_backoff": 0.5}, "Workflow retry_backoff multiplies the delay, so it must be 1 or more."),
        ({"retry_jitter": 2}, "Workflow retry_jitter is a share of the delay, from 0 to 1."),
        ({"retry_max_delay_s": -1}, "Workflow retry_max_delay_s must be zero or greater."),
        ({"timeout_s": 0}, "Workflow timeout_s must be greater than zero."),
    ],
)
def test_options_of_a_workflow_are_checked_when_it_is_run(options: dict[str, Any], message: str) -> None:
    @workflow(**options)
    class Flow:
        @step
        def only(self) -> None: ...

    for call in (lambda: Flow().run({}), lambda: export_workflow_graph(Flow)):  # type: ignore[attr-defined]
        with pytest.raises(WorkflowDefinitionError) as caught:
            call()
        assert str(caught.value) == message


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": ""}, "Step definitions must have a non-empty name."),
        ({"name": "run"}, "Step name 'run' is reserved."),
        ({"method_name": "run"}, "Step method name 'run' is reserved."),
        ({"method_name": "resume"}, "Step method name 'resume' is reserved."),
        ({"method_name": ""}, "Step definitions must have a non-empty method name."),
        ({"order": -1}, "Step definition order must be zero or greater."),
        ({"retries": -1}, "Step retry count must be zero or greater when provided."),
        ({"retry_on": [ValueError]}, "Step retry_on must be None or a tuple of exception classes."),
        ({"retry_delay": -1}, "Step retry_delay must be zero or greater when provided."),
        ({"requires_approval": 1}, "Step requires_approval must be a boolean."),
        ({"approval_message": ""}, "Step approval_message must be None or a non-empty string."),
        ({"approval_message": 5}, "Step approval_message must be None or a non-empty string."),
        ({"approval_metadata": []}, "Step approval_metadata must be None or a dictionary."),
        ({"routes": {}}, "Step routes must not be empty when provided."),
        ({"routes": {"": END}}, "Step route keys must be non-empty strings."),
        ({"routes": {1: END}}, "Step route keys must be non-empty strings."),
        ({"routes": {"a": ""}}, "Step route targets must be non-empty step names or END."),
        ({"routes": {"a": None}}, "Step route targets must be non-empty step names or END."),
        ({"retry_backoff": 0}, "Step retry_backoff multiplies the delay, so it must be 1 or more."),
        ({"retry_jitter": -1}, "Step retry_jitter is a share of the delay, from 0 to 1."),
        ({"retry_max_delay_s": -1}, "Step retry_max_delay_s must be zero or greater."),
        ({"timeout_s": 0}, "Step timeout_s must be greater than zero when provided."),
        ({"approval_timeout_s": -1}, "Step approval_timeout_s must be greater than zero when provided."),
    ],
)
def test_what_is_wrong_with_a_step_is_said(fields: dict[str, Any], message: str) -> None:
    definition = StepDefinition(**{"name": "a", "method_name": "a", "order": 0, **fields})
    with pytest.raises(WorkflowDefinitionError) as caught:
        validate_step_definition(definition)
    assert str(caught.value) == message
    with pytest.raises(WorkflowDefinitionError):
        validate_workflow_definition(WorkflowDefinition("W", [definition]))


def test_numbers_are_compared_whatever_they_are() -> None:
    with pytest.raises(TypeError):
        validate_step_definition(StepDefinition("a", "a", 0, retries="3"))  # type: ignore[arg-type]


def test_names_and_targets_of_the_steps_have_to_fit_together() -> None:
    def flow(*steps: StepDefinition) -> str:
        with pytest.raises(WorkflowDefinitionError) as caught:
            validate_workflow_definition(WorkflowDefinition("W", list(steps)))
        return str(caught.value)

    assert flow() == "Workflows must define at least one step."
    a, b = StepDefinition("a", "a", 0), StepDefinition("b", "b", 1)
    assert flow(a, a) == "Duplicate step name 'a' is not allowed."
    lost = StepDefinition("a", "a", 0, routes={"k": "zz"})
    assert flow(lost, b) == "Route target 'zz' does not match a workflow step."
    back = StepDefinition("b", "b", 1, routes={"k": "a"})
    assert flow(a, back) == "Route target 'a' must point to a later step."
    itself = StepDefinition("b", "b", 1, routes={"k": "b"})
    assert flow(a, itself) == "Route target 'b' must point to a later step."
    # Each step is looked at by itself before the routes are followed.
    assert flow(lost, StepDefinition("", "b", 1)) == "Step definitions must have a non-empty name."


def test_base_exceptions_may_be_named_for_retries() -> None:
    definition = StepDefinition("a", "a", 0, retry_on=(KeyboardInterrupt,))
    assert validate_step_definition(definition) is definition


def test_a_class_without_metadata_or_steps_is_refused_before_its_state_is_looked_at() -> None:
    class Plain: ...

    with pytest.raises(WorkflowDefinitionError, match=r"^Workflow metadata is missing from the workflow class\.$"):
        WorkflowExecutor().run(Plain(), None)
    with pytest.raises(WorkflowDefinitionError, match="metadata is missing"):
        export_workflow_graph(5)

    @workflow
    class Empty: ...

    with pytest.raises(WorkflowDefinitionError, match=r"^Workflows must define at least one step\.$"):
        Empty().run(None)  # type: ignore[attr-defined]


def test_only_none_is_no_state() -> None:
    @workflow
    class Flow:
        @step
        def only(self) -> Any:
            return self.state  # type: ignore[attr-defined]

    with pytest.raises(StateValidationError, match=r"^Initial workflow state must not be None\.$"):
        Flow().run(None)  # type: ignore[attr-defined]
    for state in ({}, 0, "", False):
        assert Flow().run(state).steps[0].output == state  # type: ignore[attr-defined]
        assert validate_initial_state(state) is state


class Signatures:
    def bare(self) -> str:
        return "bare"

    def context(self, context: Any) -> str:
        return type(context).__name__

    def with_default(self, context: Any = None) -> str:
        return type(context).__name__

    async def awaits(self) -> None: ...

    def nothing() -> None: ...  # type: ignore[misc]

    def three(self, context: Any, more: Any) -> None: ...

    def star(self, *args: Any) -> None: ...

    def stars(self, **kwargs: Any) -> None: ...

    def keyword(self, *, context: Any) -> None: ...


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("awaits", "Step methods must be synchronous functions."),
        ("nothing", "Step methods must declare a workflow instance parameter."),
        ("three", "Step methods may declare only the workflow instance and optional context."),
        ("star", "Step methods may only use positional parameters for self and optional context."),
        ("stars", "Step methods may only use positional parameters for self and optional context."),
        ("keyword", "Step methods may only use positional parameters for self and optional context."),
    ],
)
def test_a_bad_signature_is_refused_before_any_step_has_run(method: str, message: str) -> None:
    done: list[str] = []
    function = vars(Signatures)[method]

    @workflow
    class Flow:
        @step
        def first(self) -> None:
            done.append("first")

        bad = step(function)

    with pytest.raises(WorkflowDefinitionError) as caught:
        Flow().run({})  # type: ignore[attr-defined]
    assert str(caught.value) == message
    assert done == []
    with pytest.raises(WorkflowDefinitionError):
        validate_step_method_signature(function)
    if method != "awaits":
        with pytest.raises(WorkflowDefinitionError):

            @workflow(check=True)
            class Checked:
                bad = step(function)


def test_a_static_step_has_no_instance_parameter() -> None:
    @workflow
    class Flow:
        @step
        @staticmethod
        def nobody() -> None: ...

    with pytest.raises(WorkflowDefinitionError, match="must declare a workflow instance parameter"):
        Flow().run({})  # type: ignore[attr-defined]


def test_a_second_parameter_is_always_given_the_context() -> None:
    @workflow
    class Flow:
        bare = step(Signatures.bare)
        context = step(Signatures.context)
        with_default = step(Signatures.with_default)

    result = Flow().run({})  # type: ignore[attr-defined]
    assert [done.output for done in result.steps] == ["bare", "RunContext", "RunContext"]


def test_a_method_put_on_the_object_is_called_as_it_wants_to_be() -> None:
    @workflow
    class Flow:
        @step
        def only(self) -> str:
            return "class"

    flow = Flow()
    flow.only = lambda: "object"  # type: ignore[method-assign]
    assert flow.run({}).steps[0].output == "object"  # type: ignore[attr-defined]
    flow.only = lambda context: context.step_name  # type: ignore[method-assign,assignment,misc]
    assert flow.run({}).steps[0].output == "only"  # type: ignore[attr-defined]


# Beyond the original


def test_a_decorated_subclass_has_the_steps_it_inherits_at_their_places() -> None:
    @workflow
    class Parent:
        @step
        def one(self) -> str:
            return "one of parent"

        @step(routes={"on": "three"})
        def two(self) -> str:
            return "on"

        @step
        def three(self) -> str:
            return "three of parent"

        @step
        def four(self) -> str:
            return "four of parent"

    @workflow
    class Child(Parent):
        def two(self) -> str:  # keeps its routes
            return super().two()

        @step(name="three")
        def three(self) -> str:
            return "three of child"

        four = None  # type: ignore[assignment]

        @step
        def five(self) -> str:
            return "five of child"

    result = Child().run({})  # type: ignore[attr-defined]
    outputs = {done.step_name: done.output for done in result.steps}
    assert outputs == {"one": "one of parent", "two": "on", "three": "three of child", "five": "five of child"}
    assert list(outputs) == ["one", "two", "three", "five"]
    assert len(Parent.__agentflow_workflow_definition__.steps) == 4  # type: ignore[attr-defined]


def test_a_lambda_is_a_step_by_the_name_it_has_in_the_class() -> None:
    @workflow
    class Flow:
        first = step(lambda self: 1)
        second = step(name="two")(lambda self: 2)

    result = Flow().run({})  # type: ignore[attr-defined]
    assert [(done.step_name, done.output) for done in result.steps] == [("first", 1), ("two", 2)]


def test_a_whole_class_is_checked_with_one_call() -> None:
    @workflow
    class Good:
        @step
        async def only(self) -> None: ...

    assert check_workflow(Good).name == "Good"

    @workflow
    class Bad:
        only = step(Signatures.three)

    with pytest.raises(WorkflowDefinitionError, match="may declare only"):
        check_workflow(Bad)
    del Good.only
    with pytest.raises(WorkflowDefinitionError, match="has no method 'only'"):
        check_workflow(Good)


def test_a_step_called_resume_is_refused() -> None:
    @workflow
    class Flow:
        @step
        def resume(self) -> None: ...

    with pytest.raises(WorkflowDefinitionError, match=r"^Step method name 'resume' is reserved\.$"):
        WorkflowExecutor().run(Flow(), {})
