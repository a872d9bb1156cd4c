"""A `StepflowRuntime` that listens, its runs in memory as those of stepflow-server are.

Run as a script by `stepflow_library.py`: `python stepflow_embedded.py CONFIG PORT`, until its standard input ends.
"""

from __future__ import annotations

import sys

from pyflue.stepflow import StepflowRuntime


def main() -> None:
    with StepflowRuntime.start(sys.argv[1], port=int(sys.argv[2])):
        sys.stdin.read()


if __name__ == "__main__":
    main()
