"""An MCP server without manners, made of lines: `python raw_server.py <kind>`.

`hostile` has tool definitions that are broken, huge or traps; `mute` never answers; `late` answers its first call only
with its second; `stubborn` goes on after its input has ended and does not heed SIGTERM; `chatter` writes lines that are
no messages; `long` writes one that never ends; `deep` sends a message that no parser wants; `legacy` speaks an earlier
protocol and changes its tools on every call.
"""

import json
import signal
import sys
import time

sys.setrecursionlimit(20_000)
KIND = sys.argv[1]
GOOD = {"name": "good", "description": "Works.", "inputSchema": {"type": "object"}}


def nested(depth: int) -> dict:
    schema: dict = {"type": "string"}
    for _ in range(depth):
        schema = {"not": schema}
    return {"type": "object", **schema}


HOSTILE = [
    GOOD,
    "no object",
    {"description": "no name", "inputSchema": {"type": "object"}},
    {"name": "", "inputSchema": {"type": "object"}},
    {"name": "line\nbreak", "inputSchema": {"type": "object"}},
    {"name": "n" * 129, "inputSchema": {"type": "object"}},
    {"name": "no_schema"},
    {"name": "a_list", "inputSchema": {"type": "array"}},
    {"name": "not_a_schema", "inputSchema": {"type": "object", "properties": {"a": {"type": 3}}}},
    {"name": "deep", "inputSchema": nested(50)},
    {"name": "huge", "inputSchema": {"type": "object", "description": "x" * 100_000}},
    {**GOOD, "description": "The second of this name."},
    {"name": "wordy", "description": "w" * 100_000, "inputSchema": {}},
    {"name": "wörd.y", "inputSchema": {"type": "object"}, "annotations": "none", "outputSchema": {"type": "object"}},
    {"name": "w rd y", "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": "yes"}},
    {"name": "l" * 100, "inputSchema": {"type": "object"}},
    {
        "name": "trap",
        "inputSchema": {
            "type": "object",
            "required": ["a"],
            "properties": {"a": {"type": "string", "pattern": "^(a+)+$"}, "b": {"$ref": "#/$defs/b0"}},
            "$defs": {f"b{i}": {"allOf": [{"$ref": f"#/$defs/b{i + 1}"}] * 2} for i in range(40)} | {"b40": {}},
        },
        "outputSchema": {"type": "object", "properties": {"a": {"pattern": "^(a+)+$"}}},
    },
]


def tools(calls: int) -> list:
    if KIND == "deep":
        return [{"name": "deep", "inputSchema": nested(5000)}]
    return HOSTILE if KIND == "hostile" else [GOOD, *[{**GOOD, "name": f"new_{i}"} for i in range(calls)]]


def say(message: dict) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


if KIND == "long":
    while True:
        sys.stdout.write("x" * 1_000_000)
if KIND == "mute":
    for _ in sys.stdin:
        pass
    sys.exit()
if KIND == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if KIND == "chatter":
    print("Welcome to this server!\n\n{", flush=True)
calls = 0
late: list = []
for line in sys.stdin:
    asked = json.loads(line)
    method = asked.get("method")
    if method == "initialize":
        say(
            {
                "id": asked["id"],
                "result": {
                    "protocolVersion": "2025-06-18",
                    "capabilities": {"tools": {"listChanged": True}},
                    "serverInfo": {"name": KIND, "version": "1"},
                },
            }
        )
    elif method == "tools/list":
        say({"id": asked["id"], "result": {"tools": tools(calls)}})
    elif method == "tools/call" and KIND == "late":
        late.append(asked["id"])
        for each in late if len(late) > 1 else ():
            say({"id": each, "result": {"content": [{"type": "text", "text": f"answer {late.index(each) + 1}"}]}})
    elif method == "tools/call":
        calls += 1
        say(
            {
                "id": asked["id"],
                "result": {
                    "content": [
                        {"type": "text", "text": "x" * 1_000_000},
                        {"type": "audio", "data": "AAAA", "mimeType": "audio/wav"},
                        {"type": "image", "data": "%%%", "mimeType": "image/png"},
                    ],
                    "structuredContent": {"a": "a" * 40 + "!"},
                },
            }
        )
        say({"method": "notifications/tools/list_changed"})
    elif "id" in asked:
        say({"id": asked["id"], "error": {"code": -32601, "message": "Method not found"}})
while KIND == "stubborn":
    time.sleep(600)
