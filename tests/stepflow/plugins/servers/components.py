"""A component server that speaks the protocol by hand, so that it can also do what a good one never would.

Usage: components.py [stdio]. Its first argument after that says how it misbehaves from the start. Needs the standard
library only: it is run with an empty environment.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

lock = threading.Lock()
answers: dict[str, threading.Event] = {}
given: dict[str, dict] = {}
seen: list[str] = []


def send(message):
    write(json.dumps(message, separators=(",", ":")) + "\n")


def write(text):
    data = memoryview(text.encode())
    with lock:
        while data:
            data = data[os.write(1, data) :]


def ask(request_id, method, params):
    """Ask the runtime something, and wait for the answer."""
    answers[request_id] = threading.Event()
    send({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params})
    answers[request_id].wait(20)
    return given[request_id]


def execute(request_id, params):
    component, given_input = params["component"], params["input"]
    observability = params["observability"]
    about = {"observability": observability}

    def done(output):
        send({"jsonrpc": "2.0", "id": request_id, "result": {"output": output}})

    def failed(code, message, data=None):
        error = {"code": code, "message": message}
        if data is not None:
            error["data"] = data
        send({"jsonrpc": "2.0", "id": request_id, "error": error})

    match component:
        case "/echo":
            done(given_input)
        case "/call":
            done({key: params[key] for key in ("component", "input", "attempt")} | {"about": sorted(observability)})
        case "/env":
            done(dict(os.environ))
        case "/cwd":
            done(os.getcwd())
        case "/pid":
            done(os.getpid())
        case "/wait":
            path = given_input["until"]
            while not os.path.exists(path):
                time.sleep(0.005)
            done("waited")
        case "/hang":
            if given_input:
                open(given_input, "w").close()
            time.sleep(3600)
        case "/fail":
            failed(-32003, f"Component execution failed: {given_input}", {"why": "asked to"})
        case "/secret":
            failed(-32003, "the key is " + os.environ["API_KEY"])
        case "/skip":
            done({"outcome": "skipped", "reason": given_input})
        case "/noisy":
            write("a line that somebody printed\n{'not': 'json'}\n[1, 2]\n" + '{"level": "info"}\n')
            done("answered")
        case "/twice":
            done(1)
            done(2)
        case "/unknown_id":
            send({"jsonrpc": "2.0", "id": "nobody-asked", "result": {"output": 0}})
            send({"jsonrpc": "2.0", "id": 987654, "error": {"code": 1, "message": "x"}})
            done("answered")
        case "/null_id":
            send({"jsonrpc": "2.0", "id": None, "error": {"code": -32700, "message": "cannot read that"}})
        case "/no_output":
            send({"jsonrpc": "2.0", "id": request_id, "result": {"value": 1}})
        case "/bad_error":
            send({"jsonrpc": "2.0", "id": request_id, "error": "oh no"})
        case "/true_id":
            send({"jsonrpc": "2.0", "id": True, "result": {"output": 0}})
        case "/garbage":
            write('print without line break{"jsonrpc":"2.0","id":1,"result":\n')
        case "/batch":
            write('[{"jsonrpc":"2.0","id":1,"result":{"output":1}}]\n')
        case "/neither":
            send({"jsonrpc": "2.0", "id": request_id})
        case "/flood_lines":
            while True:
                write("x" * 1000 + "\n")
        case "/flood_line":
            while True:
                write("x" * 65536)
        case "/flood_requests":
            number = 0
            while True:
                number += 1
                write(json.dumps({"jsonrpc": "2.0", "id": f"f{number}", "method": "blobs/get", "params": about}) + "\n")
        case "/deep":
            write(
                '{"jsonrpc":"2.0","id":'
                + json.dumps(request_id)
                + ',"result":{"output":'
                + "[" * 5000
                + "]" * 5000
                + "}}\n"
            )
        case "/big":
            done("é" * given_input)
        case "/exit":
            sys.stderr.write("last words\nand more\n")
            sys.stderr.flush()
            os._exit(given_input)
        case "/crash_once":
            if params["attempt"] == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            done(params["attempt"])
        case "/crash":
            with open(given_input, "a") as file:
                file.write(f"{params['attempt']}\n")
            os._exit(3)
        case "/answer_and_exit":
            done("the last answer")
            os._exit(0)
        case "/close_stdout":
            os.close(1)
        case "/children":
            # One that goes on when its parent has ended, and holds the pipes open.
            child = subprocess.Popen(["sleep", given_input])
            subprocess.Popen(["sh", "-c", f"trap '' TERM HUP INT; sleep {given_input}; sleep {given_input}"])
            done(child.pid)
        case "/blob":
            put = ask(f"{request_id}-put", "blobs/put", {"data": given_input, "blob_type": "data", **about})
            blob_id = put["result"]["blob_id"]
            got = ask(f"{request_id}-get", "blobs/get", {"blob_id": blob_id, **about})
            done({"blob_id": blob_id, **got["result"]})
        case "/ask":
            asked = given_input.get("params", {})
            if isinstance(asked, dict) and given_input.get("about", True):
                asked = {**asked, **about}
            answer = ask(f"{request_id}-ask", given_input["method"], asked)
            done(answer.get("result", {"error": answer.get("error")}))
        case "/parent_dies":
            done(os.getppid())
        case _:
            failed(-32001, f"Component {component} not found")


def handle(message, workers):
    method = message.get("method")
    if method is None:
        given[message["id"]] = message
        answers[message["id"]].set()
    elif method == "initialize":
        mode = sys.argv[1] if len(sys.argv) > 1 else ""
        if mode == "silent":
            return
        if mode == "refuses":
            send({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32004, "message": "not today"}})
            return
        version = 2 if mode == "newer" else 1
        send({"jsonrpc": "2.0", "id": message["id"], "result": {"server_protocol_version": version}})
    elif method == "initialized":
        seen.append("initialized")
    elif method == "components/list":
        mode = sys.argv[1] if len(sys.argv) > 1 else ""
        if mode == "lists-nonsense":
            send({"jsonrpc": "2.0", "id": message["id"], "result": {"components": [{"name": 1}]}})
            return
        info = {
            "component": "/echo",
            "description": "Gives back what it gets.",
            "input_schema": {"type": "object"},
            "output_schema": {"type": "object"},
        }
        bare = {"component": "fail"}
        send({"jsonrpc": "2.0", "id": message["id"], "result": {"components": [info, bare]}})
    elif method == "components/execute":
        workers.submit(guarded, message["id"], message["params"])


def guarded(request_id, params):
    try:
        execute(request_id, params)
    except BaseException as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")


def main():
    mode = sys.argv[1] if len(sys.argv) > 1 else ""
    if mode.startswith("count:"):
        with open(mode.removeprefix("count:"), "a") as file:
            file.write(f"{time.monotonic()}\n")
        mode = "dies"
    if mode == "dies":
        sys.stderr.write("no such module\n")
        sys.exit(7)
    if mode == "deaf":
        os.close(0)
        time.sleep(3600)
    if mode == "ignores-everything":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    workers = ThreadPoolExecutor(32)
    for line in sys.stdin:
        handle(json.loads(line), workers)
    if mode == "ignores-everything":
        time.sleep(3600)
    os._exit(0)


if __name__ == "__main__":
    main()
