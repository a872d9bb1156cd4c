"""`python -m pyflue.stepflow.sdk`, also installed as `stepflow_server`: a server with nothing but `/udf`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from .server import StepflowServer


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve over standard input and output, or over HTTP; the exit code."""
    parser = argparse.ArgumentParser(
        prog="stepflow_server",
        description="Serve the component /udf to a Stepflow runtime, over standard input and output or over HTTP.",
    )
    parser.add_argument("--http", action="store_true", help="serve over HTTP")
    parser.add_argument("--host", default="localhost", help="where to listen (default: localhost)")
    parser.add_argument("--port", type=int, default=8080, help="0 lets the system choose one (default: 8080)")
    options = parser.parse_args(arguments)
    server = StepflowServer()
    if not options.http:
        server.start_stdio()
        return 0
    import asyncio

    try:
        asyncio.run(server.start_http(options.host, options.port))
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        print(f"Cannot listen on {options.host}:{options.port}: {error}", file=sys.stderr)  # noqa: T201  (a command)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
