"""The components of this project: each decorated function is one. Flows start this program when they need it."""

from __future__ import annotations

import msgspec

from pyflue.stepflow import StepflowStdioServer

server = StepflowStdioServer()


class Person(msgspec.Struct):
    name: str


class Greeting(msgspec.Struct):
    text: str


@server.component
def greet(person: Person) -> Greeting:
    """Greet somebody."""
    return Greeting(text=f"Hello, {person.name}!")


if __name__ == "__main__":
    server.run()
