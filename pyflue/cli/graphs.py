"""The graph of a workflow as text: Mermaid's, or a picture as SVG. Called by `pyflue workflows show --graph`.

Works on the JSON form that servers answer with, whatever kind of file the graph comes from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..engine import Graph

_Dict = Mapping[str, Any]

_WIDTH, _HEIGHT, _GAP_X, _GAP_Y, _MARGIN = 180, 44, 48, 56, 24
#: What fits into a box; the whole name is its tooltip.
_SHOWN = 24
_STYLE = (
    "text{font:13px sans-serif;text-anchor:middle;dominant-baseline:central;fill:#1c2733}"
    ".key{font-size:11px;fill:#5b6770}"
    "rect{fill:#f4f7fa;stroke:#5b6770}.approval rect{fill:#fff4d6;stroke:#b07d00}.end rect{fill:#1c2733}"
    ".end text{fill:#fff}path{fill:none;stroke:#5b6770}"
)


def to_dict(graph: Graph) -> dict[str, Any]:
    """The JSON form."""
    return {
        "nodes": [{"id": node.id, "label": node.label, "kind": node.kind} for node in graph.nodes],
        "edges": [{"source": edge.source, "target": edge.target, "label": edge.label} for edge in graph.edges],
    }


def to_mermaid(graph: _Dict) -> str:
    """The text of a Mermaid flowchart. Ids are made of places: those of a file may be anything."""
    ids = {node["id"]: f"n{place}" for place, node in enumerate(graph["nodes"])}
    lines = ["flowchart TD"]
    for node in graph["nodes"]:
        label = _quoted(node["label"] + (" (approval)" if node["kind"] == "approval" else ""))
        lines.append(f"{ids[node['id']]}(({label}))" if node["kind"] == "end" else f"{ids[node['id']]}[{label}]")
    for edge in graph["edges"]:
        key = f"|{_quoted(edge['label'])}|" if edge["label"] else ""
        lines.append(f"{ids[edge['source']]} -->{key} {ids[edge['target']]}")
    return "\n    ".join(lines)


def to_svg(graph: _Dict) -> str:
    """A picture: each node below all that lead to it, as wide as its widest row."""
    places = _places(graph)
    width = max((x for x, _ in places.values()), default=0) + _WIDTH + _MARGIN
    height = max((y for _, y in places.values()), default=0) + _HEIGHT + _MARGIN
    # Edges that leave their way around other nodes do so on the right.
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width + _GAP_X}" height="{height}" '
            f'viewBox="0 0 {width + _GAP_X} {height}">'
        ),
        f"<style>{_STYLE}</style>",
        (
            '<defs><marker id="to" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
            '<polygon points="0,0 8,4 0,8" fill="#5b6770"/></marker></defs>'
        ),
    ]
    for edge in graph["edges"]:
        parts += _line(edge, places[edge["source"]], places[edge["target"]])
    for node in graph["nodes"]:
        parts.append(_box(node, *places[node["id"]]))
    return "\n".join([*parts, "</svg>"])


def _places(graph: _Dict) -> dict[str, tuple[int, int]]:
    """Where the left upper corner of each node is."""
    rows: dict[int, list[str]] = {}
    for name, row in _rows(graph).items():
        rows.setdefault(row, []).append(name)
    widest = max((len(row) for row in rows.values()), default=1)
    places: dict[str, tuple[int, int]] = {}
    for row, names in rows.items():
        indent = (widest - len(names)) * (_WIDTH + _GAP_X) // 2
        for column, name in enumerate(names):
            x = _MARGIN + indent + column * (_WIDTH + _GAP_X)
            places[name] = (x, _MARGIN + row * (_HEIGHT + _GAP_Y))
    return places


def _rows(graph: _Dict) -> dict[str, int]:
    """The row of each node: one below the lowest that leads to it. Edges that lead back do not count."""
    order: Sequence[str] = [node["id"] for node in graph["nodes"]]
    number = {name: place for place, name in enumerate(order)}
    rows = dict.fromkeys(order, 0)
    for name in order:
        for edge in graph["edges"]:
            if edge["source"] == name and number[edge["target"]] > number[name]:
                rows[edge["target"]] = max(rows[edge["target"]], rows[name] + 1)
    return rows


def _line(edge: _Dict, source: tuple[int, int], target: tuple[int, int]) -> list[str]:
    (from_x, from_y), (to_x, to_y) = source, target
    is_next = to_y - from_y == _HEIGHT + _GAP_Y
    if is_next:
        x1, y1, x2, y2 = from_x + _WIDTH // 2, from_y + _HEIGHT, to_x + _WIDTH // 2, to_y
        bend = (y1 + y2) // 2
        path = f"M{x1},{y1} C{x1},{bend} {x2},{bend} {x2},{y2}"
        label_x, label_y = (x1 + x2) // 2, bend
    else:
        x1, y1, x2, y2 = from_x + _WIDTH, from_y + _HEIGHT // 2, to_x + _WIDTH, to_y + _HEIGHT // 2
        bend = max(x1, x2) + _GAP_X
        path = f"M{x1},{y1} C{bend},{y1} {bend},{y2} {x2},{y2}"
        label_x, label_y = (max(x1, x2) + bend) // 2, (y1 + y2) // 2
    parts = [f'<path d="{path}" marker-end="url(#to)"/>']
    if edge["label"]:
        parts.append(f'<text class="key" x="{label_x}" y="{label_y}">{_text(edge["label"])}</text>')
    return parts


def _box(node: _Dict, x: int, y: int) -> str:
    radius = _HEIGHT // 2 if node["kind"] == "end" else 6
    return (
        f'<g class="{_text(node["kind"])}"><title>{_text(node["label"], whole=True)}</title>'
        f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="{radius}"/>'
        f'<text x="{x + _WIDTH // 2}" y="{y + _HEIGHT // 2}">{_text(node["label"])}</text></g>'
    )


def _text(text: str, *, whole: bool = False) -> str:
    """Text of a file as XML shows it."""
    short = text if whole or len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
    return escape("".join(character if character.isprintable() else " " for character in short))


def _quoted(text: str) -> str:
    """Text of a file as Mermaid shows it, whatever is in it."""
    return '"' + "".join(c if c.isalnum() or c in " _-.,()" else f"#{ord(c)};" for c in text) + '"'
