"""Report how a text reads: per section its words and sentence length, the longest sentence, the words used most.

Send Markdown or plain text (`{"text": "…"}`) or name a file of the project (`{"path": "README.md"}`). Every section
is an event of the run as soon as it has been read, so a caller who streams sees the report grow.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from pyflue import FlueContext, PyFlueError
from workflows._lib.project_files import project_file

_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)
#: Code in fences, and rows of tables.
_NOT_PROSE = re.compile(r"(?ms)^(```|~~~).*?^\1\s*$|^\|[^\n]*$")
#: After a full stop, or where a paragraph or a list item begins.
_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"')\]]*\s+|\n\s*\n|\n\s*(?:[-*+]|\d+\.)\s+")
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
#: Shorter words are mostly grammar.
_TELLING_LETTERS = 5
_LONG_SENTENCE_WORDS = 40


@dataclass(frozen=True, kw_only=True)
class Document:
    """The text to report on, or the file of the project that holds it."""

    text: str = ""
    path: str = ""
    words_per_minute: int = 230


@dataclass(frozen=True, kw_only=True)
class Section:
    """What was found under one heading."""

    title: str
    words: int
    sentences: int
    words_per_sentence: float


@dataclass(frozen=True, kw_only=True)
class Report:
    """How the whole text reads."""

    words: int
    reading_minutes: float
    longest_sentence: str
    frequent_words: dict[str, int]
    sections: list[Section]


async def run(ctx: FlueContext[Document]) -> Report:
    """Report how a text reads, section by section."""
    parts = list(_split(await _read(ctx.payload)))
    counts: Counter[str] = Counter()
    sections: list[Section] = []
    longest: list[str] = []
    for number, (title, body) in enumerate(parts, start=1):
        # In a thread: a long text must not hold up the other runs of this server.
        sentences = await asyncio.to_thread(_sentences, body)
        for words in sentences:
            counts.update(word.lower() for word in words if len(word) >= _TELLING_LETTERS)
            longest = max(longest, words, key=len)
            if len(words) > _LONG_SENTENCE_WORDS:
                ctx.log.warn("long sentence", section=title, words=len(words), start=" ".join(words[:8]))
        section = _section(title, sentences)
        sections.append(section)
        ctx.emit("section", asdict(section))
        ctx.progress(number / len(parts), title)
    total = sum(section.words for section in sections)
    if total == 0:
        raise PyFlueError("The text has no words.", type="no_words", status=422)
    return Report(
        words=total,
        reading_minutes=round(total / ctx.payload.words_per_minute, 1),
        longest_sentence=" ".join(longest),
        frequent_words=dict(counts.most_common(10)),
        sections=sections,
    )


async def _read(document: Document) -> str:
    if document.path:
        path = project_file(document.path)
        try:
            return await asyncio.to_thread(path.read_text, encoding="utf-8")
        except UnicodeDecodeError as error:
            raise PyFlueError(f"{document.path!r} is not UTF-8 text.", type="not_text", status=422) from error
    return document.text


def _split(text: str) -> Iterator[tuple[str, str]]:
    """Title and prose of each section that has any."""
    prose = _NOT_PROSE.sub("", text)
    title, start = "", 0
    for heading in _HEADING.finditer(prose):
        if body := prose[start : heading.start()].strip():
            yield title, body
        title, start = heading[1], heading.end()
    if body := prose[start:].strip():
        yield title, body


def _sentences(body: str) -> list[list[str]]:
    """The words of each sentence."""
    sentences = (_WORD.findall(sentence) for sentence in _SENTENCE_END.split(body))
    return [words for words in sentences if words]


def _section(title: str, sentences: Sequence[Sequence[str]]) -> Section:
    words = sum(len(sentence) for sentence in sentences)
    return Section(
        title=title,
        words=words,
        sentences=len(sentences),
        words_per_sentence=round(words / len(sentences), 1) if sentences else 0.0,
    )
