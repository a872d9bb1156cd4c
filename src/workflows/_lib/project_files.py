"""Files of the project that a workflow's payload may name. Used by the sample workflows beside this folder."""

from __future__ import annotations

from pathlib import Path

from pyflue import PyFlueError

#: The project: the folder above `src/workflows/`.
ROOT = Path(__file__).resolve().parents[3]


def project_file(name: str) -> Path:
    """The file a payload names, relative to the project folder.

    A payload may come over the network: it reaches no file outside the project, and no hidden one (`.env`, `.pyflue`).

    Raises:
        PyFlueError: of type `path_refused` or `file_not_found`.
    """
    try:
        path = (ROOT / name).resolve()
        found = path.is_file()
    except (OSError, ValueError) as error:  # links in a circle, a name too long or with a NUL
        raise PyFlueError(f"{name!r} cannot be a file name: {error}.", type="path_refused", status=403) from error
    if not path.is_relative_to(ROOT) or any(part.startswith(".") for part in path.relative_to(ROOT).parts):
        raise PyFlueError(
            f"{name!r} is outside the project or hidden.",
            type="path_refused",
            status=403,
            hint="Name a file of the project.",
        )
    if not found:
        raise PyFlueError(
            f"There is no file {name!r} in the project.",
            type="file_not_found",
            status=404,
            hint="Paths are relative to the project folder.",
        )
    return path
