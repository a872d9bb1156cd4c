"""Serves an ASGI application the way `pyflue serve` is served: uvicorn on uvloop and httptools, TCP_NODELAY, no log.

`servers.py` starts it for the two applications ours is compared with, under the interpreter of the environment that
holds the application: it is run as a script and imports nothing of PyFlue. The socket comes already listening from the
parent process, so the first request can be sent before the application is ready.

    python serve_asgi.py bare_echo:app 5
    python serve_asgi.py --factory pyflue.server:create_app 5
"""

from __future__ import annotations

import argparse
import socket

import uvicorn


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("application", help="module:attribute")
    parser.add_argument("descriptor", type=int, help="of a listening socket")
    parser.add_argument("--factory", action="store_true", help="the attribute is a function that makes the application")
    options = parser.parse_args()
    config = uvicorn.Config(
        options.application,
        factory=options.factory,
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=options.descriptor)])


if __name__ == "__main__":
    main()
