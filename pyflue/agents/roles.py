"""Roles: who the model is for a session or a call, each in a Markdown file.

The front matter has `name` (else the file's), `description`, `model` and `thinking_level`; the text below is what the
model is told.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import AgentInvalid
from . import checking
from .markdown_files import find_markdown, inside, read_listed, split_front_matter
from .models.port import ThinkingLevel

ROLES_FOLDER = ".agents/roles"
_FIELDS = ("name", "description", "model", "thinking_level")


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """Who the model is, and with which model and how much thinking."""

    name: str
    instructions: str
    description: str = ""
    #: None keeps the agent's.
    model: str | None = None
    thinking_level: ThinkingLevel | None = None
    path: Path | None = None

    def __post_init__(self) -> None:
        what = f"Role {checking.shown(self.name)}"
        checking.name(what, "name", self.name)
        checking.text(what, "instructions", self.instructions)
        if not isinstance(self.description, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            checking.refuse(what, "description", self.description, "it must be a string")
        if self.model is not None:
            checking.text(what, "model", self.model)
        if self.thinking_level is not None:
            object.__setattr__(self, "thinking_level", thinking_level(what, self.thinking_level))


def thinking_level(what: str, value: Any) -> ThinkingLevel:
    """One of the six levels, as authors write them."""
    try:
        return ThinkingLevel(value)
    except ValueError:
        levels = ", ".join(level.value for level in ThinkingLevel)
        checking.refuse(what, "thinking_level", value, f"it must be one of {levels}")


def load_roles(folder: str | Path = ROLES_FOLDER, *, root: str | Path = ".") -> dict[str, Role]:
    """Every role below a folder of a project, by name; nothing if there is no such folder.

    Raises:
        AgentInvalid: a file is no role, two have one name, or the folder leads out of `root`.
    """
    root = Path(root)
    roles: dict[str, Role] = {}
    for path in find_markdown(inside(root, folder, "The folder of roles"), root):
        base = root.resolve()
        shown = (path.relative_to(base) if path.is_relative_to(base) else path).as_posix()
        content = read_listed(path, shown)
        if content is None:
            continue
        role = parse_role(content, path=path, shown=shown)
        if role.name in roles:
            raise AgentInvalid(f"{shown}: duplicate role name {role.name!r}; {roles[role.name].path} has it, too.")
        roles[role.name] = role
    return roles


def parse_role(content: str, *, path: Path, shown: str | None = None) -> Role:
    """A role out of a file's text. `path` gives the name if the front matter does not.

    Raises:
        AgentInvalid: it is no role.
    """
    shown = shown or path.as_posix()
    parts = split_front_matter(content, shown)
    checking.refuse_unknown(shown, "role", parts.fields, _FIELDS)
    try:
        return Role(
            name=parts.fields.get("name", path.stem),
            instructions=parts.body,
            description=parts.fields.get("description") or "",
            model=parts.fields.get("model"),
            thinking_level=parts.fields.get("thinking_level"),
            path=path,
        )
    except AgentInvalid as error:
        raise AgentInvalid(f"{shown}: {error}") from error
