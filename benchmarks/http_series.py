"""Requests that wait for their result, on our server, the bare echo and the previous release, turn and turn about.

All servers are up the whole time and the load goes A B C A B C, so a machine that slows down slows all three; the
median round of each is what is compared.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack

from pyflue import codec

from .load import Series
from .servers import SERVERS


def load(url: str, *, connections: int, seconds: float, warm_up_s: float, rate: float | None = None) -> Series:
    """One series, from a generator in its own process."""
    options = ["--connections", str(connections), "--seconds", str(seconds), "--warm-up", str(warm_up_s)]
    if rate is not None:
        options += ["--rate", str(rate)]
    process = subprocess.run(
        [sys.executable, "-m", "benchmarks.load", url, "--json", *options], stdout=subprocess.PIPE, check=True
    )
    return Series(**codec.load(process.stdout))


def compare(
    names: Sequence[str], *, connections: Sequence[int], rounds: int, seconds: float
) -> dict[int, dict[str, list[Series]]]:
    """Per number of connections and server, the series of each round.

    The first number of connections is measured for the whole time, the others for a third of it.
    """
    measured = {number: {name: list[Series]() for name in names} for number in connections}
    with ExitStack() as stack:
        urls = {name: stack.enter_context(SERVERS[name]()) for name in names}
        for round_number in range(1, rounds + 1):
            for number in connections:
                spent = seconds if number == connections[0] else seconds / 3
                for name, url in urls.items():
                    series = load(url, connections=number, seconds=spent, warm_up_s=min(1.0, spent / 4))
                    measured[number][name].append(series)
                    print(_line(round_number, name, series), file=sys.stderr)
    return measured


def medians(measured: dict[int, dict[str, list[Series]]]) -> dict[str, float]:
    """The figures: `http_<connections>.<server>.<figure>`, each the median over the rounds."""
    return {
        f"http_{connections}.{name}.{figure}": statistics.median(getattr(one, figure) for one in series)
        for connections, servers in measured.items()
        for name, series in servers.items()
        for figure in ("per_second", "p50_ms", "p99_ms", "max_ms", "generator_cpu")
    }


def _line(round_number: int, name: str, series: Series) -> str:
    return (
        f"  round {round_number}  {name:8}  {series.connections:3} connections  {series.per_second:9,.0f}/s"
        f"  p50 {series.p50_ms:8.3f} ms  p99 {series.p99_ms:8.3f} ms  {series.statuses}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.http_series")
    parser.add_argument("--only", default=",".join(SERVERS), help="which servers, such as ours,bare")
    parser.add_argument("--connections", default="32,1", help="numbers of connections (32,1)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=12.0, help="per series (12)")
    options = parser.parse_args()
    measured = compare(
        options.only.split(","),
        connections=[int(number) for number in options.connections.split(",")],
        rounds=options.rounds,
        seconds=options.seconds,
    )
    for name, value in medians(measured).items():
        print(f"{name:40} {value:12,.3f}")


if __name__ == "__main__":
    main()
