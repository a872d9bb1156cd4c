"""Start the server by hand.

    python -m tests.provider_server --port 8900 --script answers.json [--record requests.jsonl]

    ANTHROPIC_BASE_URL=http://127.0.0.1:8900 ANTHROPIC_API_KEY=any  pyflue run …
    OPENAI_BASE_URL=http://127.0.0.1:8900/v1 OPENAI_API_KEY=any     pyflue run …

`answers.json` is a list; an answer is a text, or an object with fields of `script.Answer`:

    ["Hello.",
     {"text": "I look.", "tool_calls": [{"name": "read", "input": {"path": "a.txt"}}]},
     {"status": 429, "error": "rate_limit", "headers": {"retry-after": "1"}},
     {"text": "This breaks off.", "cut_after": 4}]

The n-th request gets the n-th answer, and the last one from then on. `{"by": "conversation", "answers": […]}` gives the
n-th answer to the n-th turn of each conversation instead, which is the same after a restart. `--port 0` takes a free
port; the first line on standard output is the address. `--record` appends each request's body as a line of JSON, before
it is answered. Ctrl-C ends it.
"""

from __future__ import annotations

import argparse
import json
import socket
from pathlib import Path

import uvicorn

from .app import ProviderApp, Received
from .script import Script


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.provider_server", description="A scripted model provider.")
    parser.add_argument("--port", type=int, default=8900, help="0 takes a free one")
    parser.add_argument("--script", type=Path, help="a JSON file of answers")
    parser.add_argument("--record", type=Path, help="where requests are written to, a line each")
    options = parser.parse_args()
    answers = json.loads(options.script.read_text("utf-8")) if options.script else ["Hello from the provider server."]

    def record(received: Received) -> None:
        if options.record:
            with options.record.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"provider": received.provider, "body": received.body}) + "\n")

    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", options.port))
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    config = uvicorn.Config(
        ProviderApp(Script.from_json(answers), record),
        lifespan="off",
        log_config=None,
        log_level="critical",
        timeout_graceful_shutdown=1,
    )
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
