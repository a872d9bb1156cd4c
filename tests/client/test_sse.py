"""The parser of server-sent events, against the rules of the HTML standard."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pyflue.client.sse import Frame, Parser
from tests.promises import promise

_text = st.text(st.characters(exclude_characters="\r\n", exclude_categories=("Cs",)), max_size=20)
_line_ends = st.sampled_from(["\n", "\r\n", "\r"])


@st.composite
def _streams(draw: st.DrawFn) -> tuple[list[Frame], bytes]:
    """Frames, and a way to write them."""
    frames: list[Frame] = []
    written = ""
    for _ in range(draw(st.integers(0, 5))):
        end = draw(_line_ends)
        data = draw(st.lists(_text, min_size=1, max_size=3))
        event = draw(st.none() | _text.filter(bool))
        frame_id = draw(st.none() | _text.filter(lambda text: "\0" not in text))
        if draw(st.booleans()):
            written += f":{draw(_text)}{end}"
        if event is not None:
            written += f"event: {event}{end}"
        if frame_id is not None:
            written += f"id: {frame_id}{end}"
        written += "".join(f"data: {line}{end}" for line in data) + end
        frames.append(Frame(event=event or "message", data="\n".join(data), id=frame_id))
    return frames, written.encode()


def parse(*chunks: bytes) -> list[Frame]:
    parser = Parser()
    return [frame for chunk in chunks for frame in parser.feed(chunk)]


@promise("F23")
@given(stream=_streams(), cuts=st.lists(st.integers(0, 400), max_size=10))
def test_frames_are_the_same_however_the_bytes_are_cut(stream: tuple[list[Frame], bytes], cuts: list[int]) -> None:
    """F23: cut at random bytes."""
    frames, data = stream
    places = [0, *sorted(cuts), len(data)]
    assert parse(*(data[start:end] for start, end in pairwise(places))) == frames


@given(stream=_streams())
def test_frames_are_the_same_byte_by_byte(stream: tuple[list[Frame], bytes]) -> None:
    frames, data = stream
    assert parse(*(data[at : at + 1] for at in range(len(data)))) == frames


def test_a_frame_may_have_several_lines_of_data_and_no_space_after_the_colon() -> None:
    assert parse(b"data:a\ndata: b\ndata\n\n") == [Frame(data="a\nb\n")]


def test_comments_and_frames_without_data_are_no_frames() -> None:
    assert parse(b": heartbeat\n\nevent: ping\nid: 3\n\ndata: x\n\n") == [Frame(data="x")]


def test_unknown_fields_and_ids_with_nul_are_ignored() -> None:
    assert parse(b"retry: 10\nother: 1\nid: a\0b\ndata: x\n\n") == [Frame(data="x")]


def test_an_unfinished_frame_at_the_end_is_dropped() -> None:
    assert parse(b"data: whole\n\ndata: half\n") == [Frame(data="whole")]


def test_a_byte_order_mark_at_the_start_is_skipped() -> None:
    assert parse(b"\xef\xbb", b"\xbfdata: x\n\n") == [Frame(data="x")]


def test_a_very_long_line_in_many_chunks_is_read_in_linear_time() -> None:
    chunk = b"x" * 1024
    assert parse(b"data: ", *([chunk] * 8192), b"\n\n")[0].data == "x" * (8192 * 1024)
