"""The components of the hello flow. Nobody starts this program by hand: a runtime does, when it needs it."""

from __future__ import annotations

import msgspec

from pyflue.stepflow import StepflowStdioServer

server = StepflowStdioServer()


class Person(msgspec.Struct):
    name: str
    language: str = "en"


class Greeting(msgspec.Struct):
    greeting: str
    length: int


@server.component
def greet(person: Person) -> Greeting:
    """Greet somebody in their language."""
    word = {"de": "Hallo", "fr": "Bonjour"}.get(person.language, "Hello")
    greeting = f"{word}, {person.name}!"
    return Greeting(greeting=greeting, length=len(greeting))


if __name__ == "__main__":
    server.run()
