"""What a model may do, and the ways around a list of allowed commands that are closed."""

from __future__ import annotations

import pytest

from pyflue.agents.sandboxes import SandboxPolicy
from pyflue.errors import SandboxRefused


@pytest.mark.parametrize(
    ("kind", "may"), [("virtual", True), ("local", False), ("isolated", False), ("somebody-elses", False)]
)
def test_a_host_starts_read_only_and_memory_does_not(kind: str, may: bool) -> None:
    policy = SandboxPolicy().for_kind(kind)

    assert (policy.reads, policy.writes, policy.shell, policy.network) == (True, may, may, False)
    assert SandboxPolicy(writes=not may, shell=not may).for_kind(kind) == SandboxPolicy(writes=not may, shell=not may)


@pytest.mark.parametrize(
    ("check", "sentence"),
    [
        (lambda policy: policy.check_read(), "Read access is disabled for this sandbox."),
        (lambda policy: policy.check_write(), "Write access is disabled for this sandbox."),
        (lambda policy: policy.checked_command("ls"), "Shell execution is disabled for this sandbox."),
    ],
)
def test_refusals_say_what_is_disabled(check: object, sentence: str) -> None:
    with pytest.raises(SandboxRefused) as refusal:
        check(SandboxPolicy(reads=False, writes=False, shell=False))  # type: ignore[operator]

    assert refusal.value.message == sentence


def test_without_a_list_the_text_goes_to_the_shell_as_it_is() -> None:
    assert SandboxPolicy(shell=True).checked_command("a | b && $(c)") == "a | b && $(c)"


ECHO = SandboxPolicy(shell=True, allowed_commands=("echo", "git"))


@pytest.mark.parametrize(
    "command",
    [
        "echo hi &&(id -u)",
        "echo hi |(cat)",
        "echo hi &(id -u)",
        "echo hi\nid",
        "echo hi\rid",
        "echo $(id)",
        'echo "$(id)"',
        "echo `id`",
        'echo "`id`"',
        "echo <(id)",
        "echo hi > x",
        "echo hi>x",
        "cat<x",
        "echo hi;id",
        "echo hi||id",
        "echo$IFS-n",
        "echo ${HOME}",
        "(echo hi)",
        "echo hi \\\nid",
        "echo 'a' & id",
        "echo \"a\"'b'$(id)",
    ],
)
def test_compound_syntax_is_refused_where_only_some_commands_are_allowed(command: str) -> None:
    with pytest.raises(SandboxRefused, match=r"^Compound shell syntax is disabled for this sandbox\."):
        ECHO.checked_command(command)


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("id", "id"),
        ("./echo hi", "./echo"),
        ("/bin/echo hi", "/bin/echo"),
        ("PATH=. echo hi", "PATH=."),
        ("'echo hi'", "echo hi"),
        ("\\id", "id"),
        ("env echo hi", "env"),
        ("{ id", "{"),
        ("! echo", "!"),
    ],
)
def test_other_commands_are_refused_by_name(command: str, shown: str) -> None:
    with pytest.raises(SandboxRefused) as refusal:
        ECHO.checked_command(command)

    assert (refusal.value.message, refusal.value.hint) == (f"Command is not allowed: {shown}", "Allowed: echo, git.")


@pytest.mark.parametrize("command", ["", "  ", "echo 'open", 'echo "open', "# only"])
def test_what_is_no_command_is_refused(command: str) -> None:
    with pytest.raises(SandboxRefused):
        ECHO.checked_command(command)


def test_an_allowed_command_is_run_as_words_without_a_shell() -> None:
    words = ECHO.checked_command("""echo 'a|b; $(c)' "d & e" f\\ g *.py ~""")

    assert words == ["echo", "a|b; $(c)", "d & e", "f g", "*.py", "~"]


def test_a_grant_extends_the_list_and_never_narrows_it() -> None:
    assert ECHO.granting(["id"]).checked_command("id") == ["id"]
    assert SandboxPolicy(shell=True).granting(["id"]).checked_command("ls | wc") == "ls | wc"
