"""Runs what a page of documentation shows: its Python, its console sessions, its files. Called by `test_docs.py`.

The conventions stand in CONTRIBUTING.md ("Documentation is run"). A page is one story: its blocks run in order, in one
temporary copy of the sample project, and share folder, shell variables and Python names.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

from pyflue import codec
from pyflue.errors import InvalidJson

#: Shown to readers, checked for being what they say they are, or not at all.
NOT_RUN = {"bash", "http", "javascript", "mermaid", "sql", "text", "yaml"}
#: The ports that pages name, and the variables by which servers get others.
_DEFAULT_PORTS = {"2024": "PYFLUE_SERVER_PORT", "7837": "STEPFLOW_PORT"}
_ADDRESS = re.compile(rf"\b(127\.0\.0\.1:|localhost:)({'|'.join(_DEFAULT_PORTS)})\b")
_COMMAND_S = 60.0
_START_S = 30.0
_STOP_S = 15.0
_FILE_COMMENT = re.compile(r"(?:#|//) ([\w./-]+\.\w+)\n")
_SKIPPED = re.compile(r"<!--\s*not run:\s*\S.*-->", re.DOTALL)


class PageError(Exception):
    """A block of a page does not do what the page says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block of a page, and the line its content starts on."""

    language: str
    text: str
    line: int
    #: Why it is not run, if a comment before it says so.
    is_skipped: bool
    #: What the block before it is expected to print: a `text` block right after a `python` one.
    is_output: bool


def blocks_of(page: str) -> list[Block]:
    """The fenced blocks of a page's Markdown, in order."""
    blocks: list[Block] = []
    tokens = MarkdownIt().parse(page)
    for position, token in enumerate(tokens):
        if token.type != "fence":
            continue
        before = tokens[position - 1] if position else None
        language = (token.info.split() or [""])[0]
        blocks.append(
            Block(
                language=language,
                text=token.content,
                line=(token.map or [0])[0] + 2,
                is_skipped=before is not None and before.type == "html_block" and bool(_SKIPPED.search(before.content)),
                is_output=language == "text" and before is not None and before.type == "fence"
                and before.info.startswith("python"),
            )
        )  # fmt: skip
    return blocks


def matches(expected: str, actual: str) -> bool:
    """Whether a text is the expected one, in which `...` stands for anything: in a line, or alone for any lines."""
    pattern = ""
    for line in expected.strip("\n").split("\n"):
        if line.strip() == "...":
            pattern += r"(?:[^\n]*\n)*?"
        else:
            pattern += r"[^\n]*?".join(re.escape(part.rstrip()) for part in line.split("...")) + r"[ \t]*\n"
    return re.fullmatch(pattern, actual.strip("\n") + "\n") is not None


class Page:
    """A page while it is run. A context manager: at its end the servers it started are stopped."""

    def __init__(self, path: Path, project: Path) -> None:
        self._path = path
        self._shell = Shell(project)
        self._names: dict[str, Any] = {"__name__": "__main__"}
        self._loop = asyncio.Runner()
        self._printed = ""

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self._loop.close()
        finally:
            self._shell.close()

    def run(self, block: Block) -> None:
        """Run a block, or check it in the way its language asks for.

        Raises:
            PageError: naming the page and the line.
        """
        where = f"{self._path}:{block.line}"
        try:
            if block.is_output:
                self._check_output(block.text, self._printed, "the block before it printed")
            elif block.is_skipped:
                if block.language == "python":
                    self._compile(block)
            elif (named := _FILE_COMMENT.match(block.text)) and block.language in {"python", "toml", "yaml"}:
                self._write(named[1], block)
            else:
                self._run_by_language(block)
        except PageError as error:
            raise PageError(f"{where}: {error}") from error.__cause__

    def _run_by_language(self, block: Block) -> None:
        match block.language:
            case "python":
                self._python(block)
            case "console":
                for command, expected in _session(block.text):
                    self._check_output(
                        expected, self._shell.run(command, text_after=block.text), f"$ {command}\nprinted"
                    )
            case "json":
                _check_json(block.text)
            case "toml":
                _check_toml(block.text)
            case language if language in NOT_RUN:
                if language == "bash":
                    self._shell.check_syntax(block.text)
            case other:
                raise PageError(f"a block of language {other!r}: use python, console, json, toml or {sorted(NOT_RUN)}")

    def _python(self, block: Block) -> None:
        code = self._compile(block)
        printed = io.StringIO()
        with self._shell.entered(), contextlib.redirect_stdout(printed):
            try:
                result = eval(code, self._names)
                if inspect.iscoroutine(result):
                    self._loop.run(asyncio.wait_for(result, _COMMAND_S))
            except Exception as error:  # whatever the page's code raises is what its reader would get
                raise PageError(f"{type(error).__name__}: {error}") from error
        self._printed = self._shell.with_default_port(printed.getvalue())

    def _compile(self, block: Block) -> Any:
        text = "\n" * (block.line - 1) + self._shell.with_own_port(block.text)
        try:
            return compile(text, str(self._path), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        except SyntaxError as error:
            raise PageError(f"not Python: {error}") from error

    def _write(self, name: str, block: Block) -> None:
        if block.language == "python":
            self._compile(block)
        elif block.language == "toml":
            _check_toml(block.text)
        path = self._shell.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self._shell.with_own_port(block.text), encoding="utf-8")

    def _check_output(self, expected: str, actual: str, what: str) -> None:
        if expected.strip() and not matches(expected, actual):
            raise PageError(f"{what}\n{actual.rstrip()}\nand the page says\n{expected.rstrip()}")


def _check_json(text: str) -> None:
    try:
        codec.decode(text.encode(), "The block")
    except InvalidJson as error:
        raise PageError(str(error)) from error


def _check_toml(text: str) -> None:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PageError(f"not TOML: {error}") from error


def _session(text: str) -> Iterator[tuple[str, str]]:
    """Each command of a console block with the output shown after it."""
    if not text.startswith("$ "):
        raise PageError("a console block starts with a command: `$ …`")
    lines = iter(text.split("\n"))
    command, output = "", list[str]()
    for line in lines:
        if line.startswith("$ "):
            if command:
                yield command, "\n".join(output)
            command, output = line.removeprefix("$ "), []
            while command.endswith("\\"):
                command += "\n" + next(lines)
        else:
            output.append(line)
    yield command, "\n".join(output)


class Shell:
    """The terminal of a page: commands run one by one in bash, keeping folder, variables and exit status between them.

    The page's own servers listen on free ports, where the page says 2024 and 7837.
    """

    def __init__(self, project: Path) -> None:
        self.folder = project
        self._ports = {default: _free_port() for default in _DEFAULT_PORTS}
        self._status = 0
        self._environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PYFLUE_")},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            **{variable: self._ports[default] for default, variable in _DEFAULT_PORTS.items()},
            "NO_COLOR": "1",
            "COLUMNS": "120",
            "LC_ALL": "C.UTF-8",
        }
        self._servers: list[_Server] = []

    def run(self, command: str, *, text_after: str) -> str:
        """Run a command and return what it printed, on both outputs. One that ends in `&` is a server: it is started.

        Raises:
            PageError: it failed, and the page does not show `$ echo $?` to say so.
        """
        command = self.with_own_port(command)
        if command.endswith("&"):
            self._servers.append(_Server(command.removesuffix("&"), self.folder, self._environ, self._ports.values()))
            return ""
        # Whatever the command changes in its shell, the next one finds: the folder and the variables it exported.
        script = f"(exit {self._status})\n{command}\nstatus=$?\n{{ pwd; env -0; }} >&3\nexit $status"
        with tempfile.TemporaryFile() as state:
            done = self._bash(script, state.fileno(), command)
            state.seek(0)
            folder, _, variables = state.read().decode().partition("\n")
        printed = self.with_default_port(done.stdout.decode())
        if done.returncode and "echo $?" not in text_after:
            raise PageError(f"$ {command}\nended with exit code {done.returncode} and said\n{printed}")
        self._status = done.returncode
        self.folder = Path(folder)
        self._environ = dict(variable.split("=", 1) for variable in variables.rstrip("\0").split("\0"))
        return printed

    def check_syntax(self, script: str) -> None:
        """
        Raises:
            PageError: bash could not read the script.
        """
        checked = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, check=False)
        if checked.returncode:
            raise PageError(checked.stderr)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """This process in the shell's folder, with its variables, for the Python blocks."""
        before, environ = Path.cwd(), dict(os.environ)
        os.chdir(self.folder)
        os.environ.update(self._environ)
        try:
            yield
        finally:
            os.chdir(before)
            os.environ.clear()
            os.environ.update(environ)

    def with_own_port(self, text: str) -> str:
        return _ADDRESS.sub(lambda found: found[1] + self._ports[found[2]], text)

    def with_default_port(self, text: str) -> str:
        for default, own in self._ports.items():
            text = text.replace(f":{own}", f":{default}")
        return text

    def close(self) -> None:
        for server in reversed(self._servers):
            server.stop()

    def _bash(self, script: str, state: int, command: str) -> subprocess.CompletedProcess[bytes]:
        try:
            return subprocess.run(
                ["bash", "-c", f"exec 3>&{state}\n{script}"],
                cwd=self.folder,
                env=self._environ,
                pass_fds=[state],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=_COMMAND_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise PageError(f"$ {command}\ndid not end in {_COMMAND_S:g} s") from error


class _Server:
    """A command that a page started with `&`; ready when it says the address it listens on."""

    def __init__(self, command: str, folder: Path, environ: dict[str, str], ports: Iterable[str]) -> None:
        self._process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            cwd=folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._said: list[str] = []
        self._listens = False
        self._settled = threading.Event()
        self._reader = threading.Thread(target=self._read, args=([f":{port}" for port in ports],))
        self._reader.start()
        if not self._settled.wait(_START_S) or not self._listens:
            self.stop()
            raise PageError(f"$ {command}&\ndid not start:\n{''.join(self._said)}")

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._reader.join()

    def _read(self, addresses: list[str]) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                self._said.append(line.decode(errors="replace"))
                if any(address in self._said[-1] for address in addresses):
                    self._listens = True
                    self._settled.set()
        self._settled.set()  # it has ended


def _free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])
