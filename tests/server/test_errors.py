"""The table of statuses."""

from __future__ import annotations

from collections.abc import Iterator

from pyflue import errors
from pyflue.errors import PyFlueError
from pyflue.server.errors import STATUSES, status_of


def tree(cls: type[PyFlueError]) -> Iterator[type[PyFlueError]]:
    yield cls
    for child in cls.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from tree(child)


def test_every_error_has_a_status_of_its_own() -> None:
    assert set(STATUSES) == set(tree(PyFlueError))


def test_an_authors_own_error_has_the_status_of_what_it_derives_from() -> None:
    class NoSuchOrder(errors.RunNotFound):
        pass

    assert status_of(NoSuchOrder("order")) == 404
    assert status_of(PyFlueError("used up", status=429)) == 429
