"""The ids of runs: UUIDs outside, ULIDs of the same bits in a project's journal."""

from __future__ import annotations

import re
import time
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyflue.ids import new_ulid, new_uuid
from pyflue.stepflow.backend import ulid_of, uuid_of


def test_new_ids_are_uuids_of_version_7_with_the_time_in_front() -> None:
    before = time.time_ns() // 1_000_000
    made = [new_uuid() for _ in range(100)]
    after = time.time_ns() // 1_000_000
    assert len(set(made)) == 100
    for text in made:
        uuid = UUID(text)
        assert (str(uuid), uuid.version, uuid.variant) == (text, 7, "specified in RFC 4122")
        assert before <= uuid.int >> 80 <= after


@given(st.uuids())
def test_a_uuid_and_its_ulid_are_the_same_bits(uuid: UUID) -> None:
    ulid = ulid_of(str(uuid))
    assert ulid is not None
    assert re.fullmatch("[0-7][0-9A-HJKMNP-TV-Z]{25}", ulid)
    assert uuid_of(ulid) == str(uuid)
    assert ulid_of(uuid.hex) == ulid


def test_every_run_id_is_a_uuid_of_version_7_and_grows() -> None:
    made = [new_ulid() for _ in range(1000)]

    assert made == sorted(set(made))
    for ulid in made:
        uuid = UUID(uuid_of(ulid))
        assert (uuid.version, uuid.variant) == (7, "specified in RFC 4122")
        assert ulid_of(str(uuid)) == ulid


@pytest.mark.parametrize("text", ["", "abc", "{018f0000-0000-7000-8000-000000000000}", "g" * 32, "é" * 32, "0" * 64])
def test_other_texts_are_no_uuids(text: str) -> None:
    assert ulid_of(text) is None
