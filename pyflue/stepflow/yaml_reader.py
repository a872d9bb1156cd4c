"""Documents as text: YAML 1.2 (core schema) and JSON into plain values, with the line and column of whatever is wrong.

Used for flows, configs, inputs and variables. The text is a stranger's: nothing in it makes an object, a mapping has
each key once, aliases are counted as if they were written out, depth and size are limited. Timestamps, `yes`, `on` and
`12:30:00` are texts. Only the events of PyYAML are used, none of its constructors; it is imported with the first YAML.

Values are read by themselves. Where everything is (`Marks`) is found out when it is asked for the first time, by
reading the text again: that is when something is wrong with it.
"""

from __future__ import annotations

import json
import math
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeAlias, cast

from .exceptions import DocumentMalformed, Place, place_text

if TYPE_CHECKING:
    import yaml

#: No document is larger.
LIMIT_BYTES: Final = 16 * 1024 * 1024
#: As deep as JSON may be everywhere in PyFlue.
MAX_DEPTH: Final = 100
#: How many aliases there may be, those inside of what an alias stands for counted again.
MAX_ALIASES: Final = 100

Position: TypeAlias = tuple[int, int]


class PairList(list[tuple[Any, Any]]):
    """A mapping whose keys are not all texts, as pairs of key and value. Only where it is asked for."""


class Marks:
    """Where in its text each value is."""

    __slots__ = ("_find", "_found")

    def __init__(self, find: Callable[[], _Places]) -> None:
        self._find = find
        self._found: _Places | None = None

    def position(self, path: Place, *, of_key: bool = False) -> Position:
        """Line and column, from 1, of the value at a path, or of its key; of what is around it if it is not there."""
        if self._found is None:
            self._found = self._find()
        if of_key and path in self._found.keys:
            return self._found.keys[path]
        while path and path not in self._found.values:
            path = path[:-1]
        return self._found.values.get(path, (1, 1))


@dataclass(frozen=True, slots=True)
class Document:
    """What was read from a text."""

    value: Any
    marks: Marks


@dataclass(frozen=True, slots=True)
class _Places:
    values: dict[Place, Position]
    keys: dict[Place, Position]


def read_document(text: str | bytes, suffix: str = ".yaml", *, pairs: bool = False) -> Document:
    """Read a document; `suffix` is that of its file: `.json` is JSON, everything else YAML.

    With `pairs`, keys of mappings may be anything; a mapping whose keys are not all texts is then a `PairList`.

    Raises:
        DocumentMalformed: it cannot be read.
    """
    text = _decoded(text)
    if suffix.lower() == ".json":
        value = _Json(text).read()
    else:
        # JSON is YAML, but not to PyYAML in every detail (surrogate pairs), and much faster to read.
        if text.lstrip()[:1] in ("{", "["):
            try:
                return Document(_Json(text).read(), Marks(lambda: _Json(text).places()))
            except _NotJson:
                pass
        return Document(_Yaml(text, pairs).read(), Marks(lambda: _Yaml(text, pairs).places()))
    return Document(value, Marks(lambda: _Json(text).places()))


def read_yaml(text: str | bytes, *, pairs: bool = False) -> Any:
    """The value of a YAML document. Raises as `read_document`."""
    return read_document(text, pairs=pairs).value


def read_json(text: str | bytes) -> Any:
    """The value of a JSON document. Raises as `read_document`."""
    return read_document(text, ".json").value


def _decoded(text: str | bytes) -> str:
    if len(text) > LIMIT_BYTES:
        raise _too_large()
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError as error:
            before = text[: error.start].decode("utf-8")
            raise DocumentMalformed("This is not UTF-8: save the file as UTF-8.", *_after(before)) from error
    else:
        try:
            size = len(text.encode())
        except UnicodeEncodeError as error:
            message = "This is half of a surrogate pair, which no text may hold: remove it."
            raise DocumentMalformed(message, *_after(text[: error.start])) from error
        if size > LIMIT_BYTES:
            raise _too_large()
    return text.removeprefix("\ufeff")


def _too_large() -> DocumentMalformed:
    return DocumentMalformed(
        f"The document is larger than {LIMIT_BYTES // 1024 // 1024} MiB: keep data in files of their own.", 1, 1
    )


def _after(text: str) -> Position:
    return text.count("\n") + 1, len(text) - text.rfind("\n")


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


# JSON

_PIECE = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+', re.DOTALL)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")

_JSON_ADVICE: Final[Mapping[str, str]] = {
    "Expecting property name": "Put the key in double quotes, or remove the comma before `}`.",
    "Illegal trailing comma": "Remove the comma.",
    "Expecting ',' delimiter": "Put a comma before this, or close the bracket.",
    "Expecting ':' delimiter": "Put a colon after the key.",
    "Expecting value": "Put a value here; texts stand in double quotes.",
    "Extra data": "A document is one value: remove what follows it.",
    "Invalid control character": r"Write line breaks and tabs in a text as `\n` and `\t`.",
    "Unterminated string": "Close the quotation mark.",
    "Invalid \\": r"Write a backslash in a text as `\\`.",
}


class _NotJson(DocumentMalformed):
    """The text is not even JSON in its form; it may be YAML."""


class _Suspect(Exception):
    """Something in the text has to be looked at with its place in view."""


class _Json:
    """One JSON text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._lines: list[int] | None = None

    def read(self) -> Any:
        try:
            value = json.loads(
                self._text,
                object_pairs_hook=_unique,
                parse_float=_checked_float,
                parse_int=_checked_int,
                parse_constant=_suspect,
            )
        except json.JSONDecodeError as error:
            advice = next((text for start, text in _JSON_ADVICE.items() if error.msg.startswith(start)), "")
            message = f"This is not valid JSON: {error.msg}. {advice}".rstrip()
            raise _NotJson(message, error.lineno, error.colno) from error
        except (_Suspect, RecursionError):
            self.places()
            raise AssertionError("what was refused is not there") from None
        if _SURROGATE.search(self._text) or _is_deep(value):
            self.places()
        return value

    def places(self) -> _Places:
        """Where everything is.

        Raises:
            DocumentMalformed: a key twice, a number that is none, half of a surrogate pair, nested too deep.
        """
        values: dict[Place, Position] = {}
        keys: dict[Place, Position] = {}
        # Of each open bracket: its path, and the keys so far (None for a list) or the index that comes next.
        paths: list[Place] = []
        opened: list[set[str] | None] = []
        indexes: list[int] = []
        path: Place = ()
        is_key = False
        for piece, start in self._pieces():
            match piece:
                case "{" | "[":
                    if len(paths) == MAX_DEPTH:
                        self._refuse(start, _too_deep(path))
                    values[path] = self._position(start)
                    paths.append(path)
                    opened.append(set() if piece == "{" else None)
                    indexes.append(0)
                    is_key = piece == "{"
                    path = path if is_key else (*path, 0)
                case "}" | "]":
                    path = paths.pop()
                    opened.pop()
                    indexes.pop()
                case ",":
                    is_key = opened[-1] is not None
                    indexes[-1] += 1
                    path = paths[-1] if is_key else (*paths[-1], indexes[-1])
                case ":":
                    is_key = False
                case _ if is_key:
                    name = self._string(piece, start)
                    seen = cast("set[str]", opened[-1])
                    path = (*paths[-1], name)
                    if name in seen:
                        self._refuse(start, f"The key `{_short(name)}` is there twice: remove or rename one.")
                    seen.add(name)
                    keys[path] = self._position(start)
                case _:
                    self._check_scalar(piece, start, path)
                    values[path] = self._position(start)
        return _Places(values, keys)

    def _pieces(self) -> Iterator[tuple[str, int]]:
        for found in _PIECE.finditer(self._text):
            yield found[0], found.start()

    def _string(self, token: str, start: int) -> str:
        text = cast("str", json.loads(token))
        try:
            text.encode()
        except UnicodeEncodeError:
            self._refuse(start, "This text has half of a surrogate pair: remove it, or write both halves.")
        return text

    def _check_scalar(self, token: str, start: int, path: Place) -> None:
        if token[0] == '"':
            if "\\u" in token:
                self._string(token, start)
        elif token not in ("true", "false", "null"):
            problem = _number_problem(token)
            if problem is not None:
                self._refuse(start, f"{place_text(path)} {problem}")

    def _position(self, offset: int) -> Position:
        if self._lines is None:
            self._lines = [0, *(found.end() for found in re.finditer("\n", self._text))]
        line = bisect_right(self._lines, offset)
        return line, offset - self._lines[line - 1] + 1

    def _refuse(self, offset: int, message: str) -> NoReturn:
        raise DocumentMalformed(message, *self._position(offset))


def _number_problem(token: str) -> str | None:
    if token in ("NaN", "Infinity", "-Infinity"):
        return f"is {token}, which JSON does not have: use null or a text."
    if token.lstrip("-").isdigit():
        return None if _fits(token) else f"is a number of more than {_MAX_DIGITS:,} digits: write it as a text."
    return None if _finite(token) is not None else "is a number too large to be kept: write it as a text."


_MAX_DIGITS = 4300


def _fits(digits: str) -> bool:
    return len(digits.lstrip("+-")) <= _MAX_DIGITS


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise _Suspect
    return value


def _suspect(token: str) -> NoReturn:
    raise _Suspect(token)


def _checked_float(token: str) -> float:
    number = _finite(token)
    return _suspect(token) if number is None else number


def _checked_int(token: str) -> int:
    return int(token) if _fits(token) else _suspect(token)


def _is_deep(value: Any) -> bool:
    level = _containers([value])
    for _ in range(MAX_DEPTH):
        if not level:
            return False
        level = _containers(item for container in level for item in _members(container))
    return bool(level)


def _containers(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if isinstance(value, (dict, list))]


def _members(container: Any) -> Iterable[Any]:
    return cast("dict[str, Any]", container).values() if isinstance(container, dict) else container


def _too_deep(path: Place) -> str:
    return f"{_short(place_text(path))} is nested deeper than {MAX_DEPTH} levels: flatten it."


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}…"


# YAML

_NOT_PRINTABLE = re.compile(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_INT = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_NUMBER_STARTS = frozenset("-+.0123456789")
_WORDS: Final[Mapping[str, bool | None]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_CORE = "tag:yaml.org,2002:"
_COLLECTION_TAGS = {"list": f"{_CORE}seq", "dict": f"{_CORE}map"}

_YAML_ADVICE: Final[Mapping[str, str]] = {
    "mapping values are not allowed": "Put a text that contains `: ` in quotes, and check the indentation.",
    "could not find expected ':'": "Put `: ` after the key, or close the quotes of the text before.",
    "did not find expected ',' or": "Put a comma before this, or close the bracket.",
    "expected ',' or": "Put a comma before this, or close the bracket.",
    "unexpected end of stream": "Close the quotation mark.",
    "expected <block end>": "Check the indentation of this line and of the one before it.",
    "did not find expected": "Check the indentation and the brackets of this line and of the one before it.",
    "found character": "Put a text that starts with this character in quotes.",
    "found unknown escape": r"Write a backslash as `\\`, or use single quotes.",
    "undefined tag handle": "Remove the tag, or put the text in quotes.",
}


class _Frame:
    """A list or mapping that is being read."""

    __slots__ = ("aliases", "anchor", "expanded", "height", "is_list", "items", "key", "key_mark", "mark", "pairs")

    def __init__(self, *, is_list: bool, anchor: str | None, mark: Any, aliases: int, expanded: int) -> None:
        self.is_list = is_list
        self.anchor = anchor
        self.mark = mark
        self.items: list[Any] = []
        #: Of a mapping, in place of `items`; keyed by the text of the key, or by its JSON if it is no text.
        self.pairs: dict[str | bytes, tuple[Any, Any]] = {}
        self.key: Any = _NO_KEY
        self.key_mark: Any = None
        #: How deep the deepest of what is inside goes.
        self.height = 0
        self.aliases = aliases
        self.expanded = expanded


class _Anchored:
    """What an alias stands for."""

    __slots__ = ("aliases", "height", "is_text", "size", "value")

    def __init__(self, value: Any, *, is_text: bool, height: int, aliases: int, size: int) -> None:
        self.value = value
        self.is_text = is_text
        self.height = height
        #: What one alias counts for: itself and all aliases inside.
        self.aliases = aliases
        self.size = size


_NO_KEY: Final = object()


class _Yaml:
    """One YAML text; makes a value from the parser's events, with a stack of its own."""

    def __init__(self, text: str, pairs: bool) -> None:
        self._text = text
        self._pairs = pairs
        self._stack: list[_Frame] = []
        self._anchors: dict[str, _Anchored | None] = {}
        self._aliases = 0
        self._expanded = 0
        self._places: _Places | None = None
        self._value: Any = None

    def read(self) -> Any:
        import yaml

        odd = _NOT_PRINTABLE.search(self._text)
        if odd is not None:
            message = f"The character U+{ord(odd[0]):04X} cannot stand in YAML: remove it, or write it as an escape."
            raise DocumentMalformed(message, *_after(self._text[: odd.start()]))
        loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        documents = 0
        try:
            for event in cast("Iterator[yaml.Event]", cast("Any", yaml).parse(self._text, Loader=loader)):
                if isinstance(event, yaml.ScalarEvent):
                    self._scalar(event)
                elif isinstance(event, yaml.CollectionStartEvent):
                    self._open(event, is_list=isinstance(event, yaml.SequenceStartEvent))
                elif isinstance(event, yaml.CollectionEndEvent):
                    self._close(event)
                elif isinstance(event, yaml.AliasEvent):
                    self._alias(event)
                elif isinstance(event, yaml.DocumentStartEvent):
                    documents += 1
                    if documents > 1:
                        self._refuse(event, "A second document starts here: a file holds one. Remove the `---`.")
        except yaml.MarkedYAMLError as error:
            raise self._malformed(error) from error
        except yaml.YAMLError as error:  # the reader's own, which `_NOT_PRINTABLE` should have found before
            raise DocumentMalformed(f"This is not valid YAML: {error}.", 1, 1) from error
        return self._value

    def places(self) -> _Places:
        """Where everything is."""
        self._places = _Places({}, {})
        self.read()
        return self._places

    def _malformed(self, error: yaml.MarkedYAMLError) -> DocumentMalformed:
        mark: Any = error.problem_mark or error.context_mark
        problem = (error.problem or error.context or "it cannot be read").strip()
        line, column = (1, 1) if mark is None else (mark.line + 1, mark.column + 1)
        lines = self._text.splitlines()
        rest = lines[line - 1][column - 1 :] if line <= len(lines) else ""
        if rest[:1] == "\t" or (rest and "\t" in _indentation(lines[line - 1])):
            return DocumentMalformed("YAML is not indented with tabs: use spaces.", line, column)
        advice = next((text for start, text in _YAML_ADVICE.items() if start in problem), "")
        return DocumentMalformed(
            f"This is not valid YAML: {problem}. {advice or 'Check this line and the one before it.'}", line, column
        )

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        text, tag = event.value, cast("str | None", event.tag)
        frame = self._stack[-1] if self._stack else None
        if frame is not None and not frame.is_list and frame.key is _NO_KEY and not self._pairs:
            # A key is its text, whatever it would be as a value.
            if event.implicit[0] and tag is None and text == "<<":
                self._refuse(event, "`<<` does not merge in YAML 1.2: write the fields out, or put the key in quotes.")
            self._check_tag(event, tag, f"{_CORE}str")
            value: Any = text
        elif tag is None or tag == "!":
            value = self._resolve(event, text) if event.implicit[0] and tag is None else text
        else:
            value = self._tagged(event, tag, text)
        if event.anchor is not None:
            self._anchors[event.anchor] = _Anchored(
                value, is_text=isinstance(value, str), height=0, aliases=1, size=len(text)
            )
        self._add(value, event, 0)

    def _resolve(self, event: yaml.ScalarEvent, text: str) -> Any:
        """What a plain scalar means by the core schema of YAML 1.2."""
        if text[:1] not in _NUMBER_STARTS:
            return _WORDS.get(text, text)
        if _INT.fullmatch(text):
            if not _fits(text):
                self._refuse_value(event, f"is a number of more than {_MAX_DIGITS:,} digits: put it in quotes.")
            return int(text)
        if _BASED.fullmatch(text):
            return int(text, 0)
        if _FLOAT.fullmatch(text):
            number = _finite(text)
            if number is None:
                self._refuse_value(event, "is a number too large to be kept: put it in quotes.")
            return number
        if _NOT_FINITE.fullmatch(text):
            self._refuse_value(event, f"is {text}, which JSON does not have: use null, or put it in quotes.")
        return text

    def _tagged(self, event: yaml.ScalarEvent, tag: str, text: str) -> Any:
        name = tag.removeprefix(_CORE)
        if name == "str":
            return text
        value = self._resolve(event, text) if name in ("null", "bool", "int", "float") else None
        if name == "float" and type(value) is int:
            return float(text)
        kinds = {"null": type(None), "bool": bool, "int": int, "float": float}
        if name not in kinds:
            self._check_tag(event, tag, "")
        if type(value) is not kinds[name]:
            self._refuse(event, f"`{_short(text)}` is not of the type `!!{name}`: remove the tag, or change the value.")
        return value

    def _check_tag(self, event: Any, tag: str | None, expected: str) -> None:
        if tag not in (None, "!", expected):
            shown = f"!!{tag.removeprefix(_CORE)}" if tag.startswith(_CORE) else tag
            self._refuse(event, f"The tag `{_short(shown)}` is not read here: only plain values are. Remove it.")

    def _open(self, event: Any, *, is_list: bool) -> None:
        self._check_tag(event, event.tag, f"{_CORE}seq" if is_list else f"{_CORE}map")
        if self._stack and self._is_key_next() and not self._pairs:
            self._refuse(event, "A key must be a text: put it in quotes if it starts with `[` or `{`.")
        if len(self._stack) == MAX_DEPTH:
            self._refuse_deep(event)
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        self._stack.append(
            _Frame(
                is_list=is_list,
                anchor=event.anchor,
                mark=event.start_mark,
                aliases=self._aliases,
                expanded=self._expanded,
            )
        )

    def _close(self, event: Any) -> None:
        frame = self._stack.pop()
        if frame.is_list:
            value: Any = frame.items
        elif self._pairs and any(type(key) is bytes for key in frame.pairs):
            value = PairList(frame.pairs.values())
        else:
            value = dict(frame.pairs.values())
        if frame.anchor is not None:
            self._anchors[frame.anchor] = _Anchored(
                value,
                is_text=False,
                height=frame.height + 1,
                aliases=1 + self._aliases - frame.aliases,
                size=event.end_mark.index - frame.mark.index + self._expanded - frame.expanded,
            )
        self._add(value, frame, frame.height + 1)

    def _alias(self, event: yaml.AliasEvent) -> None:
        name = cast("str", event.anchor)
        if name not in self._anchors:
            self._refuse(event, f"There is no anchor `&{_short(name)}` before this: define it, or quote the text.")
        anchored = self._anchors[name]
        if anchored is None:
            self._refuse(event, f"`*{_short(name)}` stands inside of what it stands for: write it out.")
        if self._stack and self._is_key_next() and not self._pairs and not anchored.is_text:
            self._refuse(event, "A key must be a text: write it out.")
        self._aliases += anchored.aliases
        self._expanded += anchored.size
        if self._aliases > MAX_ALIASES:
            self._refuse(event, f"There are more than {MAX_ALIASES} aliases (`*name`): write some of them out.")
        if len(self._text) + self._expanded > LIMIT_BYTES:
            self._refuse(event, "With its aliases written out, the document is too large: use fewer of them.")
        if len(self._stack) + anchored.height > MAX_DEPTH:
            self._refuse_deep(event)
        self._add(anchored.value, event, anchored.height)

    def _is_key_next(self) -> bool:
        frame = self._stack[-1]
        return not frame.is_list and frame.key is _NO_KEY

    def _add(self, value: Any, where: Any, height: int) -> None:
        """Put a value where it belongs: it is the next item, the next key, or what belongs to the last key."""
        mark = where.mark if isinstance(where, _Frame) else where.start_mark
        if not self._stack:
            self._value = value
            self._note(mark)
            return
        frame = self._stack[-1]
        frame.height = max(frame.height, height)
        if frame.is_list:
            self._note(mark)
            frame.items.append(value)
        elif frame.key is _NO_KEY:
            if _identity(value) in frame.pairs:
                shown = value if isinstance(value, str) else cast("bytes", _identity(value)).decode()
                self._refuse_mark(mark, f"The key `{_short(shown)}` is there twice: remove or rename one.")
            frame.key, frame.key_mark = value, mark
        else:
            self._note(mark, frame.key_mark)
            frame.pairs[_identity(frame.key)] = (frame.key, value)
            frame.key = _NO_KEY

    def _note(self, mark: Any, key_mark: Any = None) -> None:
        if self._places is None:
            return
        path = self._path()
        self._places.values[path] = (mark.line + 1, mark.column + 1)
        if key_mark is not None:
            self._places.keys[path] = (key_mark.line + 1, key_mark.column + 1)

    def _path(self) -> Place:
        """Where the next value goes."""
        parts: list[str | int] = []
        for frame in self._stack:
            if frame.is_list:
                parts.append(len(frame.items))
            elif isinstance(frame.key, str):
                parts.append(frame.key)
            else:
                parts.append(len(frame.pairs))
        return tuple(parts)

    def _refuse_value(self, event: Any, problem: str) -> NoReturn:
        self._refuse(event, f"{place_text(self._path())} {problem}")

    def _refuse_deep(self, event: Any) -> NoReturn:
        self._refuse(event, _too_deep(self._path()))

    def _refuse(self, event: Any, message: str) -> NoReturn:
        self._refuse_mark(event.start_mark, message)

    def _refuse_mark(self, mark: Any, message: str) -> NoReturn:
        raise DocumentMalformed(message, mark.line + 1, mark.column + 1)


def _identity(key: Any) -> str | bytes:
    """What makes two keys the same."""
    if isinstance(key, str):
        return key
    from .. import codec

    return codec.encode(key)


def _indentation(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]
