"""What a *model* may do in a sandbox. Checked by the built-in tools, never by the sandbox: the author's code may all.

What a policy keeps a model from is a convenience, so that an agent that should only read only reads. What holds against
a model that is bent on harm is the sandbox itself: `virtual` or `isolated`. Above all the list of allowed commands is
no boundary: many commands run others (`git -c`, `find -exec`, `env`, `xargs`, `awk`).
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...errors import SandboxRefused

#: Kinds in which a model may do everything unless it is said otherwise: there is no host to harm.
_FREE_KINDS = frozenset({"virtual"})

_ACTIVE = frozenset("&|;<>()\n\r`$")
_ACTIVE_IN_DOUBLE_QUOTES = frozenset("`$")


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxPolicy:
    """Whether a model may read, write and run commands.

    `writes` and `shell` are decided by the kind of the sandbox where they are None: yes for `virtual`, no for others.
    """

    reads: bool = True
    writes: bool | None = None
    shell: bool | None = None
    #: The only programs that may be run, if any are named. They are run without a shell then.
    allowed_commands: tuple[str, ...] = ()
    #: Whether commands may use the network. `local` cannot keep them from it.
    network: bool = False

    def for_kind(self, kind: str) -> SandboxPolicy:
        """The policy with everything decided."""
        is_free = kind in _FREE_KINDS
        return replace(
            self,
            writes=is_free if self.writes is None else self.writes,
            shell=is_free if self.shell is None else self.shell,
        )

    def granting(self, commands: Sequence[str]) -> SandboxPolicy:
        """The policy with further commands allowed. Where all are allowed already, nothing changes."""
        if not self.allowed_commands:
            return self
        return replace(self, allowed_commands=(*self.allowed_commands, *commands))

    def check_read(self) -> None:
        if not self.reads:
            raise SandboxRefused("Read access is disabled for this sandbox.", hint="Ask the user for what you need.")

    def check_write(self) -> None:
        if not self.writes:
            raise SandboxRefused(
                "Write access is disabled for this sandbox.",
                hint="Show the change instead. The agent's author can allow it: SandboxPolicy(writes=True).",
            )

    def checked_command(self, command: str) -> str | list[str]:
        """The command as it may be run: its text for a shell, or, where only some are allowed, its words without one.

        Raises:
            SandboxRefused
        """
        if not self.shell:
            raise SandboxRefused(
                "Shell execution is disabled for this sandbox.",
                hint="Use the file tools. The agent's author can allow it: SandboxPolicy(shell=True).",
            )
        if not self.allowed_commands:
            return command
        found = _active_syntax(command)
        allowed = ", ".join(self.allowed_commands)
        if found is not None:
            raise SandboxRefused(
                f"Compound shell syntax is disabled for this sandbox. It was found here: {found!r}.",
                hint=f"Run one command at a time, without operators and substitutions. Allowed: {allowed}.",
            )
        try:
            words = shlex.split(command)
        except ValueError as error:
            raise SandboxRefused(f"The command cannot be taken apart: {error}.", hint="Close all quotes.") from None
        if not words:
            raise SandboxRefused("The command is empty.", hint=f"Allowed: {allowed}.")
        if words[0] not in self.allowed_commands:
            raise SandboxRefused(f"Command is not allowed: {words[0][:200]}", hint=f"Allowed: {allowed}.")
        return words


def _active_syntax(command: str) -> str | None:
    """The first character that means something to a shell besides separating and quoting words."""
    quote = ""
    is_escaped = False
    for character in command:
        if is_escaped:
            # A shell would join the lines; there is no honest need for it here.
            if character in "\n\r":
                return character
            is_escaped = False
        elif quote == "'":
            quote = "" if character == "'" else quote
        elif character == "\\":
            is_escaped = True
        elif quote == '"':
            if character == '"':
                quote = ""
            elif character in _ACTIVE_IN_DOUBLE_QUOTES:
                return character
        elif character in "'\"":
            quote = character
        elif character in _ACTIVE:
            return character
    return None
