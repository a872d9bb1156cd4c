"""Files with step classes as workflows: which they are, what they promise, what is wrong with them."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from pyflue.agentflow.dialect import agentflow_dialect, has_step_class
from pyflue.engine import Graph, GraphEdge, GraphNode
from pyflue.errors import PayloadInvalid
from tests.promises import promise

from .projects import Project

ONE = """
from dataclasses import dataclass

@dataclass
class RefundState:
    order_id: str
    amount: float = 1.0

@workflow
class RefundWorkflow:
    '''Refund an order.'''

    @step(routes={"ask": "ask", "no": END})
    def check(self):
        return "ask"

    @step(requires_approval=True)
    def ask(self):
        return "done"
"""


@promise("agentflow.file")
def test_a_file_with_one_workflow_class_is_a_workflow(project: Project) -> None:
    project.write("src/workflows/orders/refund.py", ONE)
    workflow = project.find("orders.refund")
    assert (workflow.name, workflow.kind, workflow.description) == ("orders.refund", "agentflow", "Refund an order.")
    assert (workflow.recovery.value, workflow.is_strict) == ("resume", False)
    assert workflow.input_schema == {
        "title": "RefundState",
        "type": "object",
        "properties": {
            "order_id": {"title": "Order Id", "type": "string"},
            "amount": {"title": "Amount", "type": "number", "default": 1.0},
        },
        "required": ["order_id"],
    }
    assert workflow.output_schema["properties"]["state"]["title"] == "RefundState"
    assert vars(workflow.parse({"order_id": "o", "amount": 2})) == {"order_id": "o", "amount": 2.0}
    with pytest.raises(PayloadInvalid) as caught:
        workflow.parse({"amount": "much"})
    assert [problem["path"] for problem in caught.value.details] == ["$.order_id", "$.amount"]
    assert workflow.graph() == Graph(
        nodes=[
            GraphNode(id="step_0", label="check", kind="step"),
            GraphNode(id="step_1", label="ask", kind="approval"),
            GraphNode(id="end_0", label="END", kind="end"),
        ],
        edges=[
            GraphEdge(source="step_0", target="step_1", label="ask"),
            GraphEdge(source="step_0", target="end_0", label="no"),
        ],
    )


BARE = "@workflow\nclass Flow:\n    @step\n    def only(self): ...\n"


@pytest.mark.parametrize(
    ("text", "is_ours"),
    [
        ("from pyflue.agentflow import workflow\n@workflow\nclass A: ...\n", True),
        ("from pyflue.agentflow import workflow\n@workflow(name='x')\nclass A: ...\n", True),
        ("import pyflue.agentflow as af\n@af.workflow\nclass A: ...\n", True),
        ("import pyflue.agentflow\n@pyflue.agentflow.workflow()\nclass A: ...\n", True),
        ("from pyflue.agentflow import workflow as flow\n@flow\nclass A: ...\n", True),
        ("from pyflue.agentflow import workflow\n@other\n@workflow\nclass A: ...\ndef helper(): ...\n", True),
        ("from pyflue.agentflow import workflow\n@workflow\nclass A: ...\nworkflow = A\n", True),
        ("from pyflue.agentflow import workflow\n@workflow\nclass A: ...\nasync def run(ctx): ...\n", False),
        ("from pyflue.agentflow import workflow\n@workflow\nclass A: ...\ndef run(ctx): ...\n", False),
        ("from pyflue.agentflow import workflow\n@workflow\nclass A: ...\nrun = print\n", False),
        ("from pyflue.agentflow import workflow\n@workflow\nclass A: ...\nrun: object = print\n", False),
        ("from pyflue.agentflow import workflow\nfrom x import run\n@workflow\nclass A: ...\n", False),
        ("from temporalio import workflow\n@workflow.defn\nclass A: ...\n", False),
        ("from somewhere import workflow\n@workflow\ndef a(): ...\n", False),
        ("'''@workflow class A'''\nasync def run(ctx): ...\n", False),
        ("@workflow\nclass A:\n  nonsense(\n", False),
        ("class A:\n  def f(self):\n    @workflow\n    class B: ...\n", False),
        ("", False),
    ],
)
def test_whose_file_it_is_is_seen_without_running_it(text: str, is_ours: bool) -> None:
    assert has_step_class(text.encode()) is is_ours


def test_a_run_beside_the_class_makes_the_file_a_python_workflow(project: Project) -> None:
    project.write("workflows/both.py", BARE + "async def run(ctx):\n    return Flow().run({}).status.value\n")
    project.write("workflows/plain.py", "async def run(ctx): ...\n")
    project.write("workflows/steps.py", BARE)
    catalog = project.catalog()
    assert [(entry.name, entry.kind, entry.error) for entry in catalog.entries()] == [
        ("both", "python", None),
        ("plain", "python", None),
        ("steps", "agentflow", None),
    ]
    assert catalog.diagnostics() == []


def test_only_python_files_are_looked_into(project: Project) -> None:
    loader = agentflow_dialect().loader
    assert loader.claims(project.write("workflows/a.py", BARE))
    assert not loader.claims(project.write("workflows/a.txt", BARE))


TWO = """
@workflow
class Parent:
    '''The parent.'''
    @step
    def only(self): ...

@workflow
class Child:
    '''The child.'''
    @step
    def only(self): ...
"""


@promise("agentflow.file")
def test_of_several_classes_the_variable_workflow_names_one(project: Project) -> None:
    project.write("workflows/none.py", TWO)
    assert project.problem("none").partition(": ")[2] == (
        "it has several workflow classes (Parent, Child). Say at its end which one it is about: `workflow = Child`."
    )
    project.write("workflows/named.py", TWO + "\nworkflow = Parent\n")
    assert project.find("named").description == "The parent."
    project.write("workflows/made.py", TWO + "\nworkflow = Child()\n")
    assert project.find("made").description == "The child."
    project.write("workflows/_base.py", BARE)
    project.write("workflows/child.py", "from ._base import Flow\n@workflow\nclass Mine(Flow):\n    '''Mine.'''\n")
    assert project.find("child").description == "Mine."


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("@workflow\nclass Flow: ...\n", "Flow: Workflows must define at least one step."),
        (
            "@workflow\nclass Flow:\n    @step\n    def a(self, b, c): ...\n",
            "Flow: Step methods may declare only the workflow instance and optional context.",
        ),
        (
            "@workflow\nclass Flow:\n    @step(name='a\\nb')\n    def a(self): ...\n",
            "Flow: Step name 'a\\nb': in a file a name is at most 100 printable characters.",
        ),
        (
            "@workflow\nclass Flow:\n    def __init__(self, limit): ...\n    @step\n    def a(self): ...\n",
            "Flow cannot be made without arguments. Make the object here: `workflow = Flow(…)`.",
        ),
        (
            "import socket\n@workflow\nclass Flow:\n    state: socket.socket\n    @step\n    def a(self): ...\n",
            "the state of Flow has no JSON form: ",
        ),
        (
            "@workflow\nclass Flow:\n    state: NoSuchType\n    @step\n    def a(self): ...\n",
            "the state of Flow has no JSON form: name 'NoSuchType' is not defined",
        ),
        (BARE + "recovery = 'never'\n", "its `recovery` is 'never'; known are 'resume', 'restart', 'fail'."),
        (BARE + "strict = 1\n", "its `strict` is 1; it is True or False."),
        ("@workflow\nclass Flow:\n    1 / 0\n", "importing it failed: ZeroDivisionError: division by zero"),
    ],
)
def test_what_is_wrong_with_a_class_is_said_with_its_file(project: Project, text: str, problem: str) -> None:
    project.write("workflows/good.py", BARE)
    project.write("workflows/bad.py", text)
    told = project.problem("bad")
    assert told.startswith("workflows/bad.py")
    assert problem in told
    assert project.find("good").kind == "agentflow"


def test_a_class_that_is_named_but_gone_when_the_file_runs_is_said(project: Project) -> None:
    project.write("workflows/gone.py", BARE + "del Flow\n")
    assert project.problem("gone").endswith("it has no class with `@workflow` at its top level.")


@pytest.mark.parametrize(
    ("text", "payload", "title"),
    [
        ("from pydantic import BaseModel\nclass Order(BaseModel):\n    n: int\n", {"n": 1}, "Order"),
        ("from typing_extensions import TypedDict\nclass Order(TypedDict):\n    n: int\n", {"n": 1}, "Order"),
        ("from dataclasses import dataclass\n@dataclass\nclass Order:\n    n: int\n", {"n": 1}, "Order"),
        ("Order = dict\n", {"n": 1}, None),
        ("Order = list[int]\n", [1], None),
    ],
)
def test_the_class_body_says_the_type_of_the_state(project: Project, text: str, payload: Any, title: str) -> None:
    flow = "@workflow\nclass Flow:\n    state: Order\n    @step\n    def only(self): ...\n"
    project.write("workflows/typed.py", text + flow)
    workflow = project.find("typed")
    assert workflow.input_schema.get("title") == title
    workflow.parse(payload)
    with pytest.raises(PayloadInvalid):
        workflow.parse("text")


STATES = """
from dataclasses import dataclass

@dataclass
class OneState:
    one: int

@dataclass
class TwoState:
    two: int

@dataclass
class Order:
    order: int

@workflow
class TwoWorkflow:
    @step
    def only(self): ...
"""


def test_a_state_that_is_not_said_is_found_by_its_name(project: Project) -> None:
    def title(text: str) -> str | None:
        project.write("workflows/found.py", text)
        return project.find("found").input_schema.get("title")

    assert title(STATES) == "TwoState"
    # One that is named for no workflow will do, if there is no other.
    assert title(STATES.replace("TwoState", "Two").replace("TwoWorkflow", "Flow")) == "OneState"
    assert title(STATES.replace("TwoWorkflow", "Flow")) is None
    assert title(STATES.replace("@workflow\n", "@workflow(state=Order)\n")) == "Order"
    project.write("workflows/open.py", BARE)
    assert project.find("open").input_schema == {"type": "object"}


def test_an_edited_file_is_loaded_again_and_the_versions_differ(project: Project) -> None:
    project.write("workflows/_lib/limits.py", "LIMIT = 1\n")
    project.write("workflows/flow.py", "from ._lib.limits import LIMIT\n" + BARE)
    catalog = project.catalog()
    first = catalog.find("flow")
    project.write("workflows/_lib/limits.py", "LIMIT = 2\n")
    assert catalog.refresh()
    second = catalog.find("flow")
    assert first.version != second.version
    project.write("workflows/flow.py", "async def run(ctx): ...\n")
    assert catalog.refresh()
    assert catalog.find("flow").kind == "python"


def test_projects_without_step_classes_do_not_pay_for_them() -> None:
    script = """
import sys
from pyflue.workflows.registered import registered_dialects
dialects, problems = registered_dialects()
assert not problems
assert not any(dialect.loader.claims(__import__("pathlib").Path(sys.argv[1])) for dialect in dialects[1:])
print([dialect.kind for dialect in dialects], *(name for name in sys.modules if name.startswith("pyflue.agentflow")))
"""
    here = "src/workflows/summarize.py"
    done = subprocess.run([sys.executable, "-c", script, here], capture_output=True, text=True, check=True)
    assert done.stdout.split("] ")[1].split() == ["pyflue.agentflow", "pyflue.agentflow.dialect"]
    assert "'agentflow'" in done.stdout
