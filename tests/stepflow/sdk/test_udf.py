"""`/udf`: functions whose code is in a blob."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from .driver import Blobs, Server, served

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


@pytest.fixture(scope="module")
def shared() -> Iterator[Server]:
    with served("components.py") as started:
        yield started


_stored = 0


def run(server: Server, code: Any, given: Any = None, schema: Any = SCHEMA, **more: Any) -> dict[str, Any]:
    """The answer of a function that nobody has called before."""
    global _stored
    _stored += 1
    blob_id = f"{_stored:064x}"
    server.runtime = Blobs(**{blob_id: {"code": code, "input_schema": schema}})
    return server.execute("/udf", {"blob_id": blob_id, "input": {"a": 2} if given is None else given}, **more)


def value(server: Server, code: str, given: Any = None, **more: Any) -> Any:
    answer = run(server, code, given, **more)
    assert "result" in answer, answer
    return answer["result"]["output"]


def error(server: Server, code: Any, given: Any = None, **more: Any) -> str:
    answer = run(server, code, given, **more)
    assert answer["error"]["code"] == -32003
    return answer["error"]["message"].removeprefix("Component execution failed: ")


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        # Definitions that leave one function.
        ("def f(input):\n    return input['a'] + 1", 3),
        ("def f(input):\n    return input.a + 1\n", 3),
        ("import math\nfrom math import sqrt\n\ndef f(input):\n    return sqrt(math.pow(input.a, 2))", 2.0),
        ("f = lambda input: input.a * 10", 20),
        ("def f(input):\n    return input['a'] if input['a'] > 3 else f({'a': input['a'] + 1})", 4),
        ("def _help(x):\n    return -x\n\ndef f(input):\n    return _help(input.a)", -2),
        ("def one(x):\n    return -x\n\ndef f(input):\n    return one(input.a)\n\nf", -2),
        ("async def f(input):\n    return input.a", 2),
        (
            "class F:\n    def __init__(self, x):\n        self.a = x.a\n\ndef f(input):\n    return F(input).a\nf",
            2,
        ),
        # An expression that gives a function.
        ("lambda input: input['a'] * 3", 6),
        ("lambda input, context: [input.a, context.attempt]", [2, 1]),
        ("lambda: 'nothing needed'", "nothing needed"),
        ("len", 1),
        # An expression over the input.
        ("input['a'] * 4", 8),
        ("input.a + sum(x for x in [1, 2])", 5),
        ("{'all': [input.a] * 2}", {"all": [2, 2]}),
        ("'constant'", "constant"),
        ("json.dumps({'r': re.sub('a', 'b', 'aa'), 'm': math.floor(2.5)})", '{"r": "bb", "m": 2}'),
        # The body of a function.
        ("return input['a'] * 5", 10),
        ("x = input.a\nif x > 1:\n    return 'more'\nreturn 'less'", "more"),
        ("def twice(x):\n    return 2 * x\nreturn twice(input.a)", 4),
        ("import datetime\nreturn datetime.date(2026, 1, input.a).isoformat()", "2026-01-02"),
        ("import asyncio\nawait asyncio.sleep(0)\nreturn context.attempt", 1),
        ("text = '''\nkept\n  as it is'''\nreturn text", "\nkept\n  as it is"),
    ],
)
def test_code_of_all_forms_is_run(shared: Server, code: str, expected: object) -> None:
    assert value(shared, code) == expected


def test_objects_of_the_input_have_their_fields_as_attributes_at_any_depth(shared: Server) -> None:
    given = {"a": 1, "deep": {"list": [{"b": {"c": "here"}}]}}
    assert value(shared, "input.deep.list[0].b.c", given) == "here"
    assert value(shared, "dict(input)", given) == given
    assert value(shared, "sorted(input)", given) == ["a", "deep"]
    assert error(shared, "input.nothing") == "Function execution failed: Input has no attribute 'nothing'"


def test_the_input_is_checked_by_the_schema_of_the_blob(shared: Server) -> None:
    expected = "Function execution failed: Input validation failed: 'two' is not of type 'integer' - at `$.a`"
    assert error(shared, "input.a", {"a": "two"}) == expected
    assert value(shared, "input", [1], schema={"type": "array"}) == [1]
    assert value(shared, "input", {"b": 1}, schema={}) == {"b": 1}
    assert error(shared, "input", schema={"type": "nothing"}).startswith("Invalid schema: ")


def test_nothing_is_fetched_that_a_schema_refers_to(shared: Server) -> None:
    text = error(shared, "input", schema={"$ref": "http://127.0.0.1:9/schema.json"})
    assert "http://127.0.0.1:9/schema.json" in text


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise ValueError('no good')", "no good"),
        ("def f(input):\n    raise KeyError('k')", "KeyError: 'k'"),
        ("if input.a:\n    raise RuntimeError", "RuntimeError"),
        ("1 / (input.a - 2)", "division by zero"),
        ("def f(input):\n    return undefined_name", "name 'undefined_name' is not defined"),
        ("open('/etc/hostname')", "name 'open' is not defined"),
    ],
)
def test_what_a_function_raises_is_told(shared: Server, code: str, message: str) -> None:
    assert error(shared, code) == f"Function execution failed: {message}"


@pytest.mark.parametrize(
    "code", ["def f(:", "x = 1", "import math", "def f(a):\n    pass\n\ndef g(a):\n    pass", "\x00", "1 +\n"]
)
def test_code_of_no_form_is_refused_with_the_code_in_the_data(shared: Server, code: str) -> None:
    answer = run(shared, code)
    assert answer["error"]["message"].startswith(
        "Component execution failed: Code compilation failed: Unable to compile code."
    )
    assert answer["error"]["data"] == {"code": code}


def test_a_blob_that_is_no_function_is_refused(shared: Server) -> None:
    assert "must contain 'code' field" in error(shared, " ")
    assert "must contain 'code' field" in error(shared, 5)
    assert "must contain 'input_schema' field" in error(shared, "1", schema=None)
    shared.runtime = Blobs(text="no dictionary")
    answer = shared.execute("/udf", {"blob_id": "text", "input": {}})
    assert answer["error"]["message"] == "Component execution failed: Blob text must contain a dictionary"
    answer = shared.execute("/udf", {"blob_id": "gone", "input": {}})
    assert answer["error"]["message"] == (
        "Component execution failed: Failed to retrieve blob gone: Blob 'gone' not found"
    )


def test_a_function_can_skip_its_step(shared: Server) -> None:
    assert value(shared, "raise SkipStep('enough')") == {"outcome": "skipped", "reason": "enough"}


def test_code_is_fetched_and_compiled_once_for_each_blob(shared: Server) -> None:
    code = "count = [0]\n\ndef f(input):\n    count[0] += 1\n    return count[0]"
    shared.runtime = blobs = Blobs(counter={"code": code, "input_schema": {}})
    message = {
        "jsonrpc": "2.0",
        "method": "components/execute",
        "params": {"component": "/udf", "input": {"blob_id": "counter", "input": {}}},
    }
    shared.send(*({**message, "id": number} for number in range(5)))
    outputs = [shared.answer_to(number)["result"]["output"] for number in range(5)]
    assert sorted(outputs) == [1, 2, 3, 4, 5]
    assert blobs.reads == ["counter"]


def test_a_function_that_blocks_does_not_hold_up_others(shared: Server) -> None:
    code = (
        "import threading\nbarrier = threading.Barrier(2, timeout=10)\ndef f(input):\n    return barrier.wait() >= 0\nf"
    )
    shared.runtime = Blobs(both={"code": code, "input_schema": {}})
    params = {"component": "/udf", "input": {"blob_id": "both", "input": {}}}
    shared.send(*({"jsonrpc": "2.0", "id": i, "method": "components/execute", "params": params} for i in (1, 2)))
    assert [shared.answer_to(i)["result"]["output"] for i in (1, 2)] == [True, True]


def test_a_function_that_exits_ends_the_process() -> None:
    """The restart test of stepflow-ai/stepflow (`tests/python/restart_functionality.yaml`) crashes its server so."""
    code = (
        "def crash(input, context):\n    import sys\n    if context.attempt == 1:\n        sys.exit(1)\n    return 'up'"
    )
    with served("components.py") as server:
        server.runtime = Blobs(crash={"code": code, "input_schema": {}})
        params = {"component": "/udf", "input": {"blob_id": "crash", "input": {}}, "attempt": 2}
        assert server.call("components/execute", params) == {"result": {"output": "up"}}
        params["attempt"] = 1
        server.send({"jsonrpc": "2.0", "id": 9, "method": "components/execute", "params": params})
        assert server.wait() == 1
