"""Writes outcomes of cases into their flow document, which otherwise stays as its author wrote it: comments and all.

The text is changed where the `output` of a case stands, or is to stand, and read again: unless that gives the old value
with exactly those outputs changed, nothing is written. Called by `pyflue flow test --update`.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from .exceptions import DocumentMalformed
from .yaml_reader import read_document

if TYPE_CHECKING:
    import yaml

_BOM = "\ufeff"
#: Ends of lines and other characters that YAML, unlike JSON, does not take as they are.
_UNSEEN = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


class UpdateRefused(Exception):
    """The file is written in a way that cannot be changed safely; what to put where is for a person to do."""


def update_file(path: Path, outputs: Mapping[int, Mapping[str, Any]]) -> None:
    """Write outcomes into a document, by the places of their cases in `test.cases`.

    Raises:
        UpdateRefused; DocumentMalformed: it cannot be read.
    """
    with path.open(encoding="utf-8", newline="") as file:
        text = file.read()
    outputs = {index: as_expected(outcome) for index, outcome in outputs.items()}
    updated = updated_text(text, path.suffix, outputs)
    # In the same folder, so that it can take the file's place; that either happens whole or not at all.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(updated)
        Path(name).chmod(path.stat().st_mode & 0o7777)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def as_expected(outcome: Mapping[str, Any]) -> dict[str, Any]:
    """An outcome as it is expected from now on: without the layers that a failure went through."""
    error = outcome.get("error")
    if not isinstance(error, Mapping):
        return dict(outcome)
    fields = dict(cast("Mapping[str, Any]", error))
    data = fields.get("data")
    if isinstance(data, Mapping) and set(cast("Mapping[str, Any]", data)) <= {"stack"}:
        del fields["data"]
    return {**outcome, "error": fields}


def updated_text(text: str, suffix: str, outputs: Mapping[int, Mapping[str, Any]]) -> str:
    """The text of a document with the outputs of cases changed.

    Raises:
        UpdateRefused; DocumentMalformed: it cannot be read.
    """
    bom = _BOM if text.startswith(_BOM) else ""
    text = text.removeprefix(_BOM)
    value = read_document(text, suffix).value
    wanted = _with_outputs(value, outputs)
    if suffix == ".json":
        written = json.dumps(wanted, indent=2, ensure_ascii=False) + "\n"
        return bom + _checked(written, suffix, wanted)
    # In the style of the document; where that does not say the same (a text that YAML takes for a number), as JSON.
    for in_one_line in (False, True):
        try:
            written = text
            for index in sorted(outputs, reverse=True):  # from the end, so that earlier places stay where they are
                written = _put(written, index, outputs[index], in_one_line=in_one_line)
            return bom + _checked(written, suffix, wanted)
        except UpdateRefused:
            if in_one_line:
                raise
    raise AssertionError("unreachable")


def _with_outputs(value: Any, outputs: Mapping[int, Mapping[str, Any]]) -> Any:
    cases = [
        {**case, "output": outputs[index]} if index in outputs else case
        for index, case in enumerate(cast("list[dict[str, Any]]", value["test"]["cases"]))
    ]
    return {**value, "test": {**value["test"], "cases": cases}}


def _checked(text: str, suffix: str, wanted: Any) -> str:
    try:
        found = read_document(text, suffix).value
    except DocumentMalformed as error:
        raise _refused() from error
    # By their texts, since `1`, `1.0` and `true` are equal to Python.
    if json.dumps(found, sort_keys=True) != json.dumps(wanted, sort_keys=True):
        raise _refused()
    return text


def _refused() -> UpdateRefused:
    return UpdateRefused("The file is written in a way that cannot be changed without rewriting it. Change it by hand.")


def _put(text: str, index: int, outcome: Mapping[str, Any], *, in_one_line: bool) -> str:
    import yaml

    compose = cast("Any", yaml.compose)  # pyright: ignore[reportUnknownMemberType]  (its stubs leave it open)
    try:
        root: Any = compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise _refused() from error
    cases = _child(_child(root, "test"), "cases")
    if not isinstance(cases, yaml.SequenceNode) or not isinstance(cases.value[index], yaml.MappingNode):
        raise _refused()
    case: yaml.MappingNode = cases.value[index]
    pairs = cast("Sequence[tuple[yaml.Node, yaml.Node]]", case.value)
    newline = "\r\n" if "\r\n" in text else "\n"
    line = _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(outcome, ensure_ascii=False))
    for key, value in pairs:
        if key.value == "output":
            start, end = key.start_mark.index, _end(value, text)
            if end < key.end_mark.index:
                raise _refused()  # an alias: what it stands for is elsewhere
            if case.flow_style or in_one_line:
                return f"{text[:start]}{text[start : key.end_mark.index]}: {line}{text[end:]}"
            block = _block(outcome, key.start_mark.column, newline)
            return f"{text[:start]}{block.lstrip()}{text[end:]}"
    last = _end(pairs[-1][1], text)
    if last < pairs[-1][0].end_mark.index:
        last = pairs[-1][0].end_mark.index  # behind the key of an alias; the rest of the line comes with it
    if case.flow_style:
        return f"{text[:last]}, output: {line}{text[last:]}"
    end_of_line = text.find("\n", last)
    if end_of_line < 0:
        end_of_line, text = len(text) + len(newline), text + newline
        end_of_line -= 1
    column = pairs[0][0].start_mark.column
    block = " " * column + f"output: {line}" if in_one_line else _block(outcome, column, newline)
    return f"{text[: end_of_line + 1]}{block}{newline}{text[end_of_line + 1 :]}"


def _child(node: Any, name: str) -> Any:
    import yaml

    if not isinstance(node, yaml.MappingNode):
        raise _refused()
    for key, value in cast("Sequence[tuple[yaml.Node, yaml.Node]]", node.value):
        if key.value == name:
            return value
    raise _refused()


def _end(node: yaml.Node, text: str) -> int:
    """Behind the last character of a node. A block's own mark is where the next thing begins, comments skipped."""
    import yaml

    if isinstance(node, yaml.MappingNode) and not node.flow_style and node.value:
        key, value = node.value[-1]
        return max(key.end_mark.index, _end(value, text))
    if isinstance(node, yaml.SequenceNode) and not node.flow_style and node.value:
        return _end(node.value[-1], text)
    return len(text[: node.end_mark.index].rstrip())


def _block(outcome: Mapping[str, Any], column: int, newline: str) -> str:
    """`output:` and the outcome below it, each line at least as far in as the column, without an end of line."""
    import yaml

    dumped = yaml.safe_dump(
        {"output": dict(outcome)}, sort_keys=False, allow_unicode=True, default_flow_style=False, width=10**6
    )
    return newline.join(" " * column + line if line else line for line in dumped.splitlines())
