"""Typed payloads and results."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from pyflue import codec
from pyflue.engine import FlueContext
from pyflue.errors import PayloadInvalid, ResultInvalid

from .conftest import ProjectFolder

Context = Callable[..., FlueContext[Any]]

TICKETS = """
    from __future__ import annotations
    from typing import TYPE_CHECKING, Literal
    from pydantic import BaseModel, Field
    if TYPE_CHECKING:
        from pyflue import FlueContext

    class Customer(BaseModel):
        name: str

    class Ticket(BaseModel):
        id: int
        customer: Customer
        labels: list[str] = []
        kind: int | Literal["open"] = "open"
        sent_by: str = Field(default="", alias="from")

    class Classification(BaseModel):
        priority: Literal["low", "high"]
        for_whom: str = Field(default="all", alias="for")

    async def run(ctx: FlueContext[Ticket]) -> Classification:
        result = ctx.payload.labels[0] if ctx.payload.labels else None
        return {"priority": result} if result else Classification(priority="low")
"""


async def test_a_model_is_validated_in_and_dumped_out(project: ProjectFolder, context: Context) -> None:
    project.write("workflows/classify.py", TICKETS)
    workflow = project.catalog().find("classify")
    ticket = workflow.parse({"id": 7, "customer": {"name": "Ada"}, "from": "web"})
    assert (type(ticket).__name__, ticket.customer.name, ticket.sent_by) == ("Ticket", "Ada", "web")
    assert await workflow.run(context(ticket)) == {"priority": "low", "for": "all"}
    assert workflow.input_schema["required"] == ["id", "customer"]
    assert "from" in workflow.input_schema["properties"]
    assert workflow.input_schema["$defs"]["Customer"]["properties"]["name"]["type"] == "string"
    # In a result every field is there, whatever its default.
    assert workflow.output_schema["properties"]["for"] == {"default": "all", "title": "For", "type": "string"}


@pytest.mark.parametrize(
    ("payload", "paths"),
    [
        ({"id": "x", "customer": {"name": 1}}, ["$.id", "$.customer.name"]),
        ({"id": 1, "customer": {}}, ["$.customer.name"]),
        ({"id": 1, "customer": {"name": "A"}, "labels": ["a", 5]}, ["$.labels[1]"]),
        ({"id": 1, "customer": {"name": "A"}, "kind": "shut"}, ["$.kind", "$.kind"]),
        ({"id": 1, "customer": {"name": "A"}, "from": 1}, ["$.from"]),
        ([], ["$"]),
        (None, ["$"]),
    ],
)
def test_what_does_not_fit_is_named_by_its_path(project: ProjectFolder, payload: Any, paths: list[str]) -> None:
    project.write("workflows/classify.py", TICKETS)
    with pytest.raises(PayloadInvalid) as caught:
        project.catalog().find("classify").parse(payload)
    assert [problem["path"] for problem in caught.value.details] == paths
    assert "classify" in str(caught.value)


async def test_a_result_that_does_not_fit_is_refused(project: ProjectFolder, context: Context) -> None:
    project.write("workflows/classify.py", TICKETS)
    workflow = project.catalog().find("classify")
    ticket = workflow.parse({"id": 7, "customer": {"name": "Ada"}, "labels": ["urgent"]})
    with pytest.raises(ResultInvalid) as caught:
        await workflow.run(context(ticket))
    assert caught.value.details == [{"path": "$.priority", "message": "Input should be 'low' or 'high'"}]


EVERYTHING = """
    import datetime, decimal, enum, uuid
    from dataclasses import dataclass, field
    from pyflue import FlueContext
    from pydantic import ConfigDict
    from pydantic.dataclasses import dataclass as checked

    class Colour(enum.Enum):
        RED = "red"

    @dataclass
    class Everything:
        at: datetime.datetime
        day: datetime.date
        took: datetime.timedelta
        id: uuid.UUID
        colour: Colour
        price: decimal.Decimal
        pair: tuple[int, str]
        tags: set[str]
        by_number: dict[int, bytes]

    @checked(config=ConfigDict(strict=True))
    class Strictly(Everything): ...

    async def run(ctx: FlueContext[{payload}]) -> {payload}:
        return ctx.payload
"""


@pytest.mark.parametrize("payload", ["Everything", "Strictly", "'Everything'"])
async def test_types_that_json_writes_as_strings_and_lists_come_and_go(
    project: ProjectFolder, context: Context, payload: str
) -> None:
    project.write("workflows/all.py", EVERYTHING.replace("{payload}", payload))
    workflow = project.catalog().find("all")
    value = {
        "at": "2026-11-21T05:12:44Z",
        "day": "2026-11-21",
        "took": "PT1M30S",
        "id": "12345678-1234-5678-1234-567812345678",
        "colour": "red",
        "price": "0.10",
        "pair": [1, "a"],
        "tags": ["x"],
        "by_number": {"7": "b"},
    }
    typed = workflow.parse(value)
    assert (typed.at.year, typed.pair, typed.tags, typed.by_number) == (2026, (1, "a"), {"x"}, {7: b"b"})
    result = await workflow.run(context(typed))
    assert result == value


async def test_typed_dicts_lists_and_unions_are_types_too(project: ProjectFolder, context: Context) -> None:
    project.write(
        "workflows/sum.py",
        """
        from typing import Annotated
        from typing_extensions import TypedDict
        from pydantic import Field
        from pyflue import FlueContext

        class Item(TypedDict):
            price: Annotated[float, Field(gt=0)]

        def run(ctx: FlueContext[list[Item]]) -> float:
            return sum(item["price"] for item in ctx.payload)
        """,
    )
    workflow = project.catalog().find("sum")
    assert await workflow.run(context(workflow.parse([{"price": 1}, {"price": 2.5}]))) == 3.5
    assert workflow.output_schema == {"type": "number"}
    with pytest.raises(PayloadInvalid) as caught:
        workflow.parse([{"price": 1}, {}, {"price": -1}])
    assert [problem["path"] for problem in caught.value.details] == ["$[1].price", "$[2].price"]


def test_a_validator_that_fails_refuses_the_payload(project: ProjectFolder) -> None:
    project.write(
        "workflows/picky.py",
        """
        from typing import Annotated
        from pydantic import AfterValidator
        from pyflue import FlueContext

        def look_up(value: str) -> str:
            return {}[value]

        def run(ctx: FlueContext[Annotated[str, AfterValidator(look_up)]]): ...
        """,
    )
    with pytest.raises(PayloadInvalid) as caught:
        project.catalog().find("picky").parse("x")
    assert caught.value.details == [{"path": "$", "message": "KeyError: 'x'"}]


async def test_a_result_that_cannot_be_written_is_refused(project: ProjectFolder, context: Context) -> None:
    project.write("workflows/raw.py", "def run(ctx) -> bytes:\n    return bytes([255])\n")
    with pytest.raises(ResultInvalid, match="invalid utf-8"):
        await project.catalog().find("raw").run(context())


def test_no_more_than_a_hundred_problems_are_listed(project: ProjectFolder) -> None:
    project.write("workflows/ints.py", "from pyflue import FlueContext\ndef run(ctx: FlueContext[list[int]]): ...\n")
    with pytest.raises(PayloadInvalid) as caught:
        project.catalog().find("ints").parse(["x"] * 250)
    assert len(caught.value.details) == 101
    assert caught.value.details[-1] == {"path": "$", "message": "150 more problems"}


@pytest.mark.parametrize(
    ("signature", "schemas", "accepted", "refused"),
    [
        ("ctx", ({}, {}), [1], []),
        ("ctx: 'FlueContext'", ({}, {}), [None], []),
        ("ctx: 'FlueContext[Any]'", ({}, {}), [None], []),
        ("ctx: 'FlueContext[dict]'", ({"type": "object"}, {}), [{}], [[]]),
        ("ctx: 'FlueContext[dict[str, Any]]'", ({"type": "object"}, {}), [{"a": 1}], [None, "x"]),
        ("ctx) -> (dict", ({}, {"type": "object"}), [1], []),
        ("ctx) -> (None", ({}, {"type": "null"}), [1], []),
        ("ctx) -> ('Any'", ({}, {}), [1], []),
    ],
)
def test_without_types_anything_is_passed_through(
    project: ProjectFolder, signature: str, schemas: Any, accepted: list[Any], refused: list[Any]
) -> None:
    project.write("workflows/open.py", f"def run({signature}): ...\n")
    workflow = project.catalog().find("open")
    assert (workflow.input_schema, workflow.output_schema) == schemas
    for payload in accepted:
        assert workflow.parse(payload) is payload
    for payload in refused:
        with pytest.raises(PayloadInvalid):
            workflow.parse(payload)


def test_an_untyped_workflow_is_loaded_without_pydantic_and_structlog(project: ProjectFolder) -> None:
    project.write("workflows/echo.py", "from pyflue import FlueContext\ndef run(ctx: FlueContext) -> dict: ...\n")
    code = (
        "import sys\nfrom pathlib import Path\nfrom pyflue.workflows import Catalog\n"
        f"Catalog(Path({str(project.root)!r})).find('echo').parse({{}})\n"
        "heavy = {'pydantic', 'pydantic_core', 'structlog', 'importlib.metadata', 'watchfiles'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


def test_schemas_are_json(project: ProjectFolder) -> None:
    project.write("workflows/classify.py", TICKETS)
    workflow = project.catalog().find("classify")
    assert codec.encode([workflow.input_schema, workflow.output_schema])
