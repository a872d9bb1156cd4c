"""The project's own instructions: `AGENTS.md` and `CLAUDE.md` in the project folder."""

from __future__ import annotations

from pathlib import Path

from ..errors import AgentInvalid
from .markdown_files import inside, read_listed

INSTRUCTION_FILES = ("AGENTS.md", "CLAUDE.md")


def project_instructions(root: str | Path) -> str:
    """What the files say, joined by a blank line; empty if there is none. One that links to the other counts once.

    Raises:
        AgentInvalid: a file is too large or not text.
    """
    texts: list[str] = []
    for name in INSTRUCTION_FILES:
        path = Path(root) / name
        try:
            real = inside(Path(root), name, name)
        except AgentInvalid:
            continue  # a link that leads out of the project is not followed
        if not real.is_file():
            continue
        content = (read_listed(path, name) or "").strip()
        if content and content not in texts:
            texts.append(content)
    return "\n\n".join(texts)
