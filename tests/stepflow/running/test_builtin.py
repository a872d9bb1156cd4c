"""The components that every flow has: section 7 of the rules of flows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pyflue.stepflow.blobs import Blobs, MemoryShelves
from pyflue.stepflow.builtin import BuiltinPlugin
from pyflue.stepflow.outcome import Failed, Success
from pyflue.stepflow.plugins.port import ComponentFailed
from tests.promises import promise

from .flows import Functions, run

DOUBLE = {
    "steps": [{"id": "double", "component": "/double", "input": {"$input": None}}],
    "output": {"$step": "double"},
}


def double(value: Any) -> Any:
    if not isinstance(value, int):
        raise ComponentFailed("not a number", failure=Failed(422, "not a number"))
    return value * 2


async def use(component: str, given: Any, *, folder: Any = ".", blobs: Blobs | None = None) -> Any:
    """What one built-in component comes to: its output, or the message of its failure without the frame around it."""
    flow = {
        "steps": [{"id": "s", "component": f"/builtin/{component}", "input": {"$literal": given}}],
        "output": {"$step": "s"},
    }
    outcome = await run(flow, functions=Functions(double=double), folder=folder, blobs=blobs)
    return outcome.value if isinstance(outcome, Success) else outcome


async def test_messages_are_made_of_a_prompt_and_instructions() -> None:
    assert await use("create_messages", {"user_prompt": "Hi", "system_instructions": "Be brief"}) == {
        "messages": [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Hi"}]
    }
    assert await use("create_messages", {"user_prompt": "Hi"}) == {"messages": [{"role": "user", "content": "Hi"}]}


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({}, "field 'user_prompt': it is missing"),
        ({"user_prompt": 3}, "field 'user_prompt': it has to be a text, and is a whole number"),
        ([], "it has to be an object, and is a list"),
        ({"user_prompt": "x", "system_instructions": False}, "it has to be a text, and is false"),
    ],
)
async def test_bad_input_is_told_by_its_field(given: Any, why: str) -> None:
    outcome = await use("create_messages", given)

    assert isinstance(outcome, Failed)
    assert outcome.code == 500
    assert outcome.message.startswith('step "s" failed: Invalid input for /create_messages: ')
    assert why in outcome.message


async def test_an_unknown_component_fails_with_the_nearest_name() -> None:
    outcome = await use("create_message", {})

    assert isinstance(outcome, Failed)
    assert "Did you mean /create_messages?" in outcome.message


@promise("stepflow.blob-ids")
async def test_blobs_come_back_and_have_the_ids_of_the_original() -> None:
    blobs = Blobs(MemoryShelves())
    data = {"message": "Hello, blobs!", "number": 42, "nested": {"array": [1, 2, 3], "boolean": True}}

    put = await use("put_blob", {"data": data, "blob_type": "data"}, blobs=blobs)

    assert put["blob_id"].startswith("868591347a")
    assert await use("get_blob", put, blobs=blobs) == {"data": data}


@pytest.mark.parametrize(
    ("component", "given", "why"),
    [
        ("put_blob", {"data": 1}, "field 'blob_type': it is missing"),
        ("put_blob", {"data": 1, "blob_type": "text"}, "it has to be 'data' or 'flow', and is 'text'"),
        ("put_blob", {"data": {"steps": 1}, "blob_type": "flow"}, "`steps` must be a list"),
        ("get_blob", {"blob_id": "abc"}, "is not a blob id: that is 64 hexadecimal digits"),
        ("get_blob", {"blob_id": "0" * 64}, "There is no blob"),
    ],
)
async def test_blobs_that_cannot_be(component: str, given: Any, why: str) -> None:
    outcome = await use(component, given)

    assert isinstance(outcome, Failed)
    assert why in outcome.message


async def test_eval_gives_the_outcome_of_a_stored_flow_also_if_it_failed() -> None:
    blobs = Blobs(MemoryShelves())
    stored = await use("put_blob", {"data": DOUBLE, "blob_type": "flow"}, blobs=blobs)

    done = await use("eval", {"flow_id": stored["blob_id"], "input": 4}, blobs=blobs)
    failed = await use("eval", {"flow_id": stored["blob_id"], "input": "x"}, blobs=blobs)

    assert done == {"result": {"outcome": "success", "result": 8}, "run_id": "run-1"}
    assert failed["result"] == {"outcome": "failed", "error": {"code": 422, "message": "not a number"}}


async def test_map_keeps_the_order_and_counts() -> None:
    assert await use("map", {"workflow": DOUBLE, "items": [1, "x", 3]}) == {
        "results": [
            {"outcome": "success", "result": 2},
            {"outcome": "failed", "error": {"code": 422, "message": "not a number"}},
            {"outcome": "success", "result": 6},
        ],
        "successful": 2,
        "failed": 1,
    }
    assert await use("map", {"workflow": DOUBLE, "items": []}) == {"results": [], "successful": 0, "failed": 0}


async def test_iterate_goes_on_until_there_is_a_result() -> None:
    flow = {
        "steps": [{"id": "d", "component": "/double", "input": {"$input": "n"}}],
        "output": {
            "$if": {"$input": "last"},
            "then": {"result": {"$step": "d"}},
            "else": {"next": {"n": {"$step": "d"}, "last": True}},
        },
    }

    done = await use("iterate", {"flow": flow, "initial_input": {"n": 1, "last": False}})
    stopped = await use("iterate", {"flow": flow, "initial_input": {"n": 1, "last": False}, "max_iterations": 1})

    assert done == {"result": 4, "iterations": 2, "terminated": False}
    assert stopped == {"result": {"n": 2, "last": True}, "iterations": 1, "terminated": True}


async def test_iterate_wants_result_or_next_and_passes_failures_on() -> None:
    wrong = await use("iterate", {"flow": {"output": {"other": 1}}, "initial_input": None})
    failed = await use("iterate", {"flow": DOUBLE, "initial_input": "x"})

    assert wrong == Failed(400, "Workflow result must contain either 'result' or 'next' field")
    assert failed == Failed(422, "not a number")


async def test_flows_that_run_themselves_end() -> None:
    blobs = Blobs(MemoryShelves())
    again = {
        "steps": [
            {
                "id": "again",
                "component": "/builtin/eval",
                "input": {"flow_id": {"$input": "id"}, "input": {"$input": None}},
            }
        ],
        "output": {"$step": "again"},
    }
    stored = await use("put_blob", {"data": again, "blob_type": "flow"}, blobs=blobs)

    outcome = await use("eval", {"flow_id": stored["blob_id"], "input": {"id": stored["blob_id"]}}, blobs=blobs)

    assert "more than 32 deep" in str(outcome)


async def test_noop_and_sleep_give_their_input_back() -> None:
    assert await use("noop", [1, {"a": None}]) == [1, {"a": None}]
    assert await use("sleep", {"duration_ms": 1, "passthrough": 5}) == {"duration_ms": 1, "passthrough": 5}


@pytest.mark.parametrize(
    ("name", "text", "expected", "kind"),
    [
        ("a.json", '{"a": 1}', {"a": 1}, "json"),
        ("a.yaml", "a: 2024-01-01\nb: yes\n", {"a": "2024-01-01", "b": "yes"}, "yaml"),
        ("a.txt", "hello", "hello", "text"),
    ],
)
async def test_files_are_read_by_their_extension(
    tmp_path: Path, name: str, text: str, expected: Any, kind: str
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / name).write_text(text)

    assert await use("load_file", {"path": f"sub/{name}"}, folder=tmp_path) == {
        "data": expected,
        "metadata": {"resolved_path": str(tmp_path / "sub" / name), "size_bytes": len(text), "format": kind},
    }


@promise("stepflow.files")
@pytest.mark.parametrize(
    ("format_", "expected"), [("text", '{"a": 1}'), ("json", {"a": 1}), ("yaml", {"a": 1}), ("xml", Failed)]
)
async def test_a_format_that_is_named_goes_before_the_extension(tmp_path: Path, format_: str, expected: Any) -> None:
    (tmp_path / "a.txt").write_text('{"a": 1}')

    found = await use("load_file", {"path": "a.txt", "format": format_}, folder=tmp_path)

    if expected is Failed:
        assert "it has to be 'json', 'yaml' or 'text', and is 'xml'" in found.message
    else:
        assert (found["data"], found["metadata"]["format"]) == (expected, format_)


async def test_only_plain_files_below_the_folder_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    (tmp_path / "outside.txt").write_text("secret-value")
    (folder / ".env").write_text("secret-value")
    (folder / "link.txt").symlink_to(tmp_path / "outside.txt")
    (folder / "out").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe.txt")
    os.link(tmp_path / "outside.txt", folder / "fine.txt")

    for path in [
        "../outside.txt",
        str(tmp_path / "outside.txt"),
        ".env",
        "link.txt",
        "out/outside.txt",
        "pipe.txt",
        "",
    ]:
        outcome = await use("load_file", {"path": path}, folder=folder)
        assert isinstance(outcome, Failed), path
        assert "secret-value" not in str(outcome)
    missing = await use("load_file", {"path": "no.txt"}, folder=folder)
    assert "No such file" in missing.message


async def test_every_component_is_listed_with_its_schemas() -> None:
    components = await BuiltinPlugin(Path()).components()

    names = [
        "create_messages",
        "eval",
        "get_blob",
        "iterate",
        "load_file",
        "map",
        "noop",
        "openai",
        "put_blob",
        "sleep",
    ]
    assert [one.path for one in components] == [f"/{name}" for name in names]
    assert all(one.description for one in components)
