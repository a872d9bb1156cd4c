"""A conversation of JSON-RPC messages, whatever pieces they come in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyflue.stepflow.jsonrpc import Answer, Misbehaved, Notification, Peer, PeerEnded, Request, RpcError, RpcLimits
from pyflue.stepflow.jsonrpc import read_message as read


class Pipe:
    """Keeps what is written; may be full."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.room: asyncio.Future[None] | None = None

    def write(self, data: bytes) -> None:
        assert data.endswith(b"\n")
        assert data.count(b"\n") == 1
        self.sent.append(json.loads(data))

    def writable(self) -> Awaitable[None] | None:
        return self.room


class Conversation:
    def __init__(self, **limits: int) -> None:
        self.pipe = Pipe()
        self.faults: list[str] = []
        self.stray: list[bytes] = []
        self.let_go = asyncio.Event()
        self.peer = Peer(
            self.pipe,
            self.answer,
            limits=RpcLimits(**limits),
            on_stray=self.stray.append,
            on_fault=self.faults.append,
        )

    async def answer(self, method: str, params: Any) -> Any:
        if method == "fail":
            raise RpcError(-32011, "not there", params)
        if method == "break":
            raise RuntimeError("broken")
        if method == "wait":
            await self.let_go.wait()
        return params

    def feed(self, *messages: Any) -> None:
        self.peer.feed(b"".join(json.dumps(message).encode() + b"\n" for message in messages))


async def test_both_sides_ask_and_answer_in_any_order() -> None:
    talk = Conversation()
    first, second = (asyncio.create_task(talk.peer.request("m", n)) for n in (1, 2))
    await asyncio.sleep(0)

    talk.feed(
        {"jsonrpc": "2.0", "id": "theirs", "method": "echo", "params": [7]},
        {"jsonrpc": "2.0", "id": 2, "result": "second"},
        {"jsonrpc": "2.0", "method": "told"},
        {"jsonrpc": "2.0", "id": 5, "method": "fail", "params": {"x": 1}},
        {"jsonrpc": "2.0", "id": 6, "method": "break"},
        {"jsonrpc": "2.0", "id": 1, "error": {"code": 4, "message": "no", "data": [1]}},
    )

    assert await second == "second"
    with pytest.raises(RpcError, match="no") as refused:
        await first
    assert (refused.value.code, refused.value.data) == (4, [1])
    talk.peer.notify("bye", {})
    assert talk.pipe.sent == [
        {"jsonrpc": "2.0", "id": 1, "method": "m", "params": 1},
        {"jsonrpc": "2.0", "id": 2, "method": "m", "params": 2},
        {"jsonrpc": "2.0", "id": "theirs", "result": [7]},
        {"jsonrpc": "2.0", "id": 5, "error": {"code": -32011, "message": "not there", "data": {"x": 1}}},
        {"jsonrpc": "2.0", "id": 6, "error": {"code": -32000, "message": "RuntimeError: broken"}},
        {"jsonrpc": "2.0", "method": "bye", "params": {}},
    ]
    await talk.peer.aclose("over")


@given(
    st.lists(st.text(max_size=20), min_size=1, max_size=6),
    st.lists(st.integers(min_value=1, max_value=30), max_size=50),
)
def test_messages_are_the_same_in_whatever_pieces_they_come(texts: list[str], cuts: list[int]) -> None:
    async def main() -> list[Any]:
        talk = Conversation()
        data = b"".join(
            json.dumps({"jsonrpc": "2.0", "id": number, "method": "echo", "params": text}).encode() + b"\r\n"
            for number, text in enumerate(texts)
        )
        for cut in cuts:
            talk.peer.feed(data[:cut])
            data = data[cut:]
        talk.peer.feed(data)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not talk.faults
        assert not talk.stray
        return [message["result"] for message in talk.pipe.sent]

    assert asyncio.run(main()) == texts


async def test_requests_above_the_limit_are_refused_and_the_others_answered() -> None:
    talk = Conversation(serving=2)

    talk.feed(*({"jsonrpc": "2.0", "id": number, "method": "wait", "params": number} for number in range(3)))
    await asyncio.sleep(0)
    talk.let_go.set()
    await asyncio.sleep(0.01)

    refused, *answers = talk.pipe.sent
    assert (refused["id"], refused["error"]["message"]) == (2, "2 requests are being answered already.")
    assert [answer["result"] for answer in answers] == [0, 1]


async def test_a_request_waits_until_there_is_room_for_it() -> None:
    talk = Conversation()
    talk.pipe.room = asyncio.get_running_loop().create_future()
    asking = asyncio.create_task(talk.peer.request("m", 1))
    await asyncio.sleep(0)
    assert talk.pipe.sent == []

    room, talk.pipe.room = talk.pipe.room, None
    room.set_result(None)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    talk.feed({"jsonrpc": "2.0", "id": 1, "result": 2})

    assert await asking == 2


async def test_the_end_is_told_to_all_who_wait_and_to_all_who_come() -> None:
    talk = Conversation()
    asking = asyncio.create_task(talk.peer.request("m", 1))
    talk.feed({"jsonrpc": "2.0", "id": 1, "method": "wait"})
    await asyncio.sleep(0)

    await talk.peer.aclose("it went away")
    talk.feed({"jsonrpc": "2.0", "id": 1, "result": 2})
    talk.peer.notify("too late", {})

    for late in (asking, talk.peer.request("m", 2)):
        with pytest.raises(PeerEnded, match="it went away"):
            await late
    assert len(talk.pipe.sent) == 1


async def test_an_answer_to_a_request_that_was_given_up_is_dropped() -> None:
    talk = Conversation()
    given_up: list[Any] = []
    asking = asyncio.create_task(talk.peer.request("m", 1, give_up=given_up.append))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait([asking])

    talk.feed({"jsonrpc": "2.0", "id": 1, "result": 2})

    assert (talk.peer.pending, given_up, talk.faults) == (0, [1], [])


@pytest.mark.parametrize("value", [object(), "\ud800", {1: object()}], ids=["object", "surrogate", "inside"])
async def test_what_is_not_json_is_not_sent(value: Any) -> None:
    talk = Conversation()

    with pytest.raises(RpcError, match="is not JSON"):
        await talk.peer.request("m", value)
    assert talk.peer.pending == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"jsonrpc":"2.0","id":1,"method":"m","params":{}}', Request(1, "m", {})),
        ('{"jsonrpc":"2.0","id":"a","method":"m"}', Request("a", "m", None)),
        ('{"jsonrpc":"2.0","method":"m","params":[]}', Notification("m", [])),
        ('{"jsonrpc":"2.0","id":1,"result":null}', Answer(1, None, None)),
        ('{"jsonrpc":"2.0","id":1,"result":2,"error":null}', Answer(1, 2, None)),
        ('{"id":1,"result":2}', Answer(1, 2, None)),
        ("hello", None),
        ('{"level":"info"}', None),
        ('{"method":"GET","path":"/"}', None),
        ('{"error":"oh no","level":"error"}', None),
        ("[1, 2]", None),
        ('"text"', None),
        ("\xff", None),
    ],
)
def test_a_line_is_a_message_or_none(text: str, message: Any) -> None:
    assert read(text.encode("latin-1"), depth=10) == message


@pytest.mark.parametrize(
    "text",
    [
        '{"jsonrpc":"2.0"',
        '{"jsonrpc":"2.0","id":1}',
        '{"jsonrpc":"2.0","id":1.0,"result":1}',
        '{"jsonrpc":"2.0","id":true,"result":1}',
        '{"jsonrpc":"2.0","id":[],"method":"m"}',
        '{"jsonrpc":"2.0","id":null,"method":"m"}',
        '{"jsonrpc":"2.0","id":1,"method":5}',
        '[{"jsonrpc":"2.0","id":1,"result":1}]',
        '"\\"jsonrpc\\"" "jsonrpc"',
        '{"jsonrpc":"2.0","id":1,"result":NaN}',
        '{"jsonrpc":"2.0","id":1,"result":' + "[" * 20 + "]" * 20 + "}",
        '{"jsonrpc":"2.0","id":1,"result":"\\ud800"}',
    ],
)
def test_what_means_to_be_a_message_and_is_none_breaks_the_protocol(text: str) -> None:
    with pytest.raises(Misbehaved):
        read(text.encode(), depth=10)
