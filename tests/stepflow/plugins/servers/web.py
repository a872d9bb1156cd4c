"""The component server of `components.py` over HTTP. Prints `{"port": N}`, unless told to misbehave."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import components

#: Components that ask for something, and so answer with a stream of events.
STREAMING = {"/blob", "/ask", "/ask_and_end", "/stream_ends", "/stream_flood", "/stream_garbage"}
INSTANCE = "instance-1"
current = threading.local()
posted: list[dict] = []


def send(message):
    current.send(message)


components.send = send


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # One segment for each answer: headers and body apart would wait for each other.
    wbufsize = -1

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.headers.get("content-type") != "application/json":
            return self.reply(415, {"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": "type"}})
        accept = self.headers.get("accept", "")
        if "application/json" not in accept or "text/event-stream" not in accept:
            return self.reply(406, {"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": "accept"}})
        method = body.get("method")
        if method is None:
            assert self.headers["stepflow-instance-id"] == INSTANCE
            components.given[body["id"]] = body
            components.answers[body["id"]].set()
            return self.reply(202, None)
        if method == "initialized":
            return self.reply(202, None)
        if method != "components/execute":
            current.send = lambda message: self.reply(200, message)
            return components.handle(body, None)
        return self.execute(body)

    def execute(self, body):
        component, given = body["params"]["component"], body["params"]["input"]
        match component:
            case "/status":
                self.reply(given, {"detail": "not JSON-RPC"})
            case "/status_error":
                error = {"code": -32002, "message": "no good"}
                self.reply(400, {"jsonrpc": "2.0", "id": body["id"], "error": error})
            case "/redirect":
                self.reply(307, None, {"location": given})
            case "/text":
                self.reply(200, "hello", {"content-type": "text/plain"})
            case "/not_json":
                self.reply(200, "{oh", {"content-type": "application/json"})
            case "/other_id":
                self.reply(200, {"jsonrpc": "2.0", "id": "other", "result": {"output": 1}})
            case "/flood":
                self.flood(b"x" * 65536)
            case "/break_off":
                self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{")
                self.close_connection = True
            case "/no_answer":
                self.close_connection = True
            case _ if component in STREAMING:
                self.stream(body)
            case _:
                current.send = lambda message: self.reply(200, message)
                components.execute(body["id"], body["params"])

    def stream(self, body):
        self.wfile.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nconnection: close\r\n"
            + f"stepflow-instance-id: {INSTANCE}\r\n\r\n: hello\n\n".encode()
        )
        self.close_connection = True
        match body["params"]["component"]:
            case "/stream_ends":
                self.wfile.write(b": nothing more\n\n")
            case "/stream_flood":
                while True:
                    self.wfile.write(b"data: " + b"x" * 65536)
            case "/stream_garbage":
                self.wfile.write(b"data: oh no\n\n")
            case _:
                current.send = lambda message: self.event(message)
                components.execute(body["id"], body["params"])

    def event(self, message):
        # In two lines and with the other line end, as is allowed.
        text = json.dumps(message, indent=0)
        for line in text.split("\n"):
            self.wfile.write(f"data: {line}\r\n".encode())
        self.wfile.write(b"\r\n")
        self.wfile.flush()

    def flood(self, data):
        self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n")
        self.close_connection = True
        while True:
            self.wfile.write(data)

    def reply(self, status, message, headers=None):
        data = b"" if message is None else (message if isinstance(message, str) else json.dumps(message)).encode()
        self.send_response(status)
        for name, value in ({"content-type": "application/json"} | (headers or {})).items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_):
        pass


def main():
    mode = sys.argv[1] if len(sys.argv) > 1 else ""
    server = Server(("127.0.0.1", 0), Handler)
    if mode == "dies":
        sys.stderr.write("no such module\n")
        sys.exit(7)
    if mode == "mute":
        time.sleep(3600)
    print("a line before")
    print(json.dumps({"port": server.server_address[1]}), flush=True)

    def follow():
        sys.stdin.read()
        os._exit(0)

    threading.Thread(target=follow, daemon=True).start()
    server.serve_forever()


if __name__ == "__main__":
    main()
