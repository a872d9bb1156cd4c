"""The files of a project that every agent is told of: its instructions, its skills, its roles.

They are looked for and read whenever an agent is made, so that what was just written counts; in a thread, as a disk may
be slow, and in one thread only: all who ask while a reading is under way share the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..settings import AgentSettings
from .instructions import project_instructions
from .roles import Role, load_roles
from .skills import Skill, load_skills


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectTexts:
    """What the files say."""

    instructions: str
    skills: Mapping[str, Skill]
    roles: Mapping[str, Role]


class ProjectFiles:
    """Reads them for all who ask on one event loop."""

    def __init__(self, settings: AgentSettings, root: Path) -> None:
        self._settings = settings
        self._root = root
        self._asking: list[asyncio.Future[ProjectTexts]] = []
        self._reading_for: asyncio.AbstractEventLoop | None = None

    def read(self) -> asyncio.Future[ProjectTexts]:
        """What they say now.

        Raises:
            AgentInvalid: a file is not what it has to be.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[ProjectTexts] = loop.create_future()
        if self._reading_for is not loop:  # none, or one that has ended meanwhile
            self._asking.clear()
            self._begin([answer], loop)
        else:
            self._asking.append(answer)
        return answer

    def _begin(self, asking: list[asyncio.Future[ProjectTexts]], loop: asyncio.AbstractEventLoop) -> None:
        self._reading_for = loop
        thread = threading.Thread(target=self._work, args=(asking, loop), name="pyflue project files", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the system has no thread left
            loop.call_soon(self._tell, asking, error, loop)

    def _work(self, asking: list[asyncio.Future[ProjectTexts]], loop: asyncio.AbstractEventLoop) -> None:
        said: ProjectTexts | BaseException
        try:
            said = self._read()
        except BaseException as error:  # noqa: BLE001  (whatever it is, whoever asked raises it)
            said = error
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: nobody is waiting any more
            loop.call_soon_threadsafe(self._tell, asking, said, loop)

    def _read(self) -> ProjectTexts:
        return ProjectTexts(
            skills=load_skills(self._settings.skills_dir, root=self._root),
            instructions=project_instructions(self._root),
            roles=load_roles(self._settings.roles_dir, root=self._root),
        )

    def _tell(
        self,
        asking: list[asyncio.Future[ProjectTexts]],
        said: ProjectTexts | BaseException,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._reading_for = None
        if self._asking:
            asking_next, self._asking = self._asking, []
            self._begin(asking_next, loop)
        for answer in asking:
            if answer.done():
                continue
            if isinstance(said, BaseException):
                answer.set_exception(said)
                answer.exception()  # who asked may go away before it looks, and asyncio would complain of that
            else:
                answer.set_result(said)
