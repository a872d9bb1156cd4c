"""Skills: instructions for one kind of task, each in a Markdown file, which a model reads when it needs them.

A skill is a file `SKILL.md` in a folder of its own, beside whatever it refers to, or any other Markdown file below the
folder of skills. Its front matter has a `name` (else the folder's, or the file's), a `description`, and optionally an
`input_schema` and an `output_schema`; other keys, which other tools read, are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import AgentInvalid
from . import checking
from .markdown_files import find_markdown, inside, read_listed, read_text, split_front_matter

SKILLS_FOLDER = ".agents/skills"
#: The file that makes a folder one skill: other Markdown below it is the skill's material.
SKILL_FILE = "SKILL.md"
_NAME = re.compile(r"[\w.-]{1,64}")
_DESCRIPTION_CHARACTERS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Skill:
    """How to do one kind of task."""

    name: str
    #: What it is for, as the model reads it when it chooses.
    description: str
    instructions: str = ""
    #: JSON Schema of the arguments; None takes any.
    input_schema: Mapping[str, Any] | None = None
    #: JSON Schema of the answer.
    output_schema: Mapping[str, Any] | None = None
    #: Where it was read from.
    path: Path | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):  # pyright: ignore[reportUnnecessaryIsInstance]
            allowed = "a name has 1 to 64 letters, digits, '_', '-' and '.'"
            checking.refuse("Skill", "name", self.name, allowed)
        checking.text(f"Skill {self.name!r}", "description", self.description)
        if not isinstance(self.instructions, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            checking.refuse(f"Skill {self.name!r}", "instructions", self.instructions, "it must be a string")
        for field in ("input_schema", "output_schema"):
            if getattr(self, field) is not None:
                checking.mapping(f"Skill {self.name!r}", field, getattr(self, field))


def load_skill(path: str | Path, *, root: str | Path | None = None) -> Skill:
    """Read one skill file, or the `SKILL.md` of a folder. With `root` it has to be inside of that folder.

    Raises:
        FileNotFoundError: there is no such file.
        AgentInvalid: it is no skill, or leads out of `root`.
    """
    file = Path(path) if root is None else inside(Path(root), path, "Skill")
    if file.is_dir():
        file = file / SKILL_FILE
        if root is not None:
            inside(Path(root), file, "Skill")
    shown = _shown(file, root)
    return parse_skill(read_text(file, shown), path=file, shown=shown)


def load_skills(folder: str | Path = SKILLS_FOLDER, *, root: str | Path = ".") -> dict[str, Skill]:
    """Every skill below a folder of a project, by name; nothing if there is no such folder.

    Raises:
        AgentInvalid: a file is no skill, two have one name, or the folder leads out of `root`.
    """
    root = Path(root)
    place = inside(root, folder, "The folder of skills")
    skills: dict[str, Skill] = {}
    paths = list(find_markdown(place, root))
    owners = {path.parent for path in paths if path.name == SKILL_FILE}
    for path in paths:
        if path.name != SKILL_FILE and not owners.isdisjoint(path.parents):
            continue  # material of a skill
        if path.name == SKILL_FILE and not owners.isdisjoint(path.parent.parents):
            continue
        shown = _shown(path, root)
        content = read_listed(path, shown)
        if content is None:
            continue
        skill = parse_skill(content, path=path, shown=shown)
        earlier = skills.setdefault(skill.name, skill)
        if earlier is not skill and earlier.path is not None:
            raise AgentInvalid(
                f"{shown}: duplicate skill name {skill.name!r}; {_shown(earlier.path, root)} has it, too."
            )
    return skills


def parse_skill(content: str, *, path: Path, shown: str | None = None) -> Skill:
    """A skill out of a file's text. `path` gives the name if the front matter does not.

    Raises:
        AgentInvalid: it is no skill.
    """
    shown = shown or path.as_posix()
    parts = split_front_matter(content, shown)
    name = parts.fields.get("name", path.parent.name if path.name == SKILL_FILE else path.stem)
    description = parts.fields.get("description") or _first_line(parts.body)
    try:
        return Skill(
            name=name,
            description=description,
            instructions=parts.body,
            input_schema=parts.fields.get("input_schema"),
            output_schema=parts.fields.get("output_schema"),
            path=path,
        )
    except AgentInvalid as error:
        raise AgentInvalid(f"{shown}: {error}") from error


def _first_line(body: str) -> str:
    line = next((line.strip("# ").strip() for line in body.splitlines() if line.strip("# ").strip()), "")
    return line[:_DESCRIPTION_CHARACTERS]


def _shown(path: Path, root: str | Path | None) -> str:
    base = Path(root or ".").resolve()
    text = (path.relative_to(base) if path.is_relative_to(base) else path).as_posix()
    return text if text.isprintable() else ascii(text)[1:-1]
