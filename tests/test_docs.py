"""Everything that README.md and the pages in docs/ show is run here, page by page."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from .docs_pages import Page, PageError, blocks_of, matches

_ROOT = Path(__file__).parent.parent
_PAGES = [path for path in (_ROOT / "README.md", *sorted((_ROOT / "docs").rglob("*.md"))) if path.is_file()]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """What a reader has in front of them: the sample workflows and the sample data."""
    ignored = shutil.ignore_patterns("__pycache__", ".pyflue")
    shutil.copytree(_ROOT / "src", tmp_path / "project" / "src", ignore=ignored)
    shutil.copytree(_ROOT / "examples", tmp_path / "project" / "examples", ignore=ignored)
    return tmp_path / "project"


def run_page(text: str, project: Path, name: str = "page.md") -> None:
    with Page(Path(name), project) as page:
        for block in blocks_of(text):
            page.run(block)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("path", _PAGES, ids=lambda path: str(path.relative_to(_ROOT)))
def test_a_page_does_what_it_shows(path: Path, project: Path) -> None:
    run_page(path.read_text(encoding="utf-8"), project, str(path.relative_to(_ROOT)))


def test_blocks_of_a_page_share_files_names_folder_and_variables(project: Path) -> None:
    run_page(
        """
```python
# notes/greeting.py
WORD = "hello"
```

```console
$ cd notes
$ export AUDIENCE=readers
$ cat greeting.py
# notes/greeting.py
WORD = ...
```

```python
import os
from pathlib import Path

greeting = Path("greeting.py").read_text()
```

```python
print(os.environ["AUDIENCE"], len(greeting.splitlines()))
```
```text
readers 2
```
""",
        project,
    )


def test_a_page_may_start_a_server_and_call_it_at_the_default_address(project: Path) -> None:
    run_page(
        """
```python
# src/workflows/double.py
from pyflue import FlueContext


async def run(ctx: FlueContext) -> int:
    return ctx.payload["n"] * 2
```

```console
$ pyflue dev &
$ pyflue run double --payload '{"n": 4}' --server http://127.0.0.1:2024
run workflow:double:...
8
```

```python
from pyflue import PyFlueClient

async with PyFlueClient("http://127.0.0.1:2024") as client:
    answer = await client.workflows.invoke("double", {"n": 3}, wait=True)
    print(answer["result"])
```
```text
6
```
""",
        project,
    )


@pytest.mark.parametrize(
    ("shown", "problem"),
    [
        ("```console\n$ echo one\ntwo\n```", r"page.md:2: .*echo one\nprinted\none\nand the page says\ntwo"),
        ("```console\n$ false\n```", r"page.md:2: \$ false\nended with exit code 1"),
        ("text\n\n```python\n1 / 0\n```", r"page.md:4: ZeroDivisionError: division by zero"),
        ("```python\nreturn = 1\n```", r"page.md:2: not Python"),
        ("```python\nprint(1)\n```\n```text\n2\n```", r"page.md:5: .*printed\n1\nand the page says\n2"),
        ("```json\n{'a': 1}\n```", r"page.md:2: .*not valid JSON"),
        ("```toml\na =\n```", r"page.md:2: not TOML"),
        ("```bash\nif then\n```", r"page.md:2: .*syntax error"),
        ("```py\nprint(1)\n```", r"page.md:2: .*language 'py'"),
        ("```console\n$ false &\n```", r"page.md:2: \$ false &\ndid not start"),
    ],
)
def test_a_page_that_shows_something_else_than_what_happens_is_refused(shown: str, problem: str, project: Path) -> None:
    with pytest.raises(PageError, match=problem):
        run_page(shown, project)


def test_a_command_may_fail_where_the_page_shows_its_exit_code(project: Path) -> None:
    run_page("```console\n$ (exit 3)\n$ echo $?\n3\n```", project)


def test_a_block_that_says_why_is_not_run(project: Path) -> None:
    run_page("<!-- not run: takes a network -->\n\n```console\n$ curl https://example.com\n```", project)


@pytest.mark.parametrize(
    ("expected", "actual", "does_match"),
    [
        ("run workflow:echo:...", "run workflow:echo:01JX", True),
        ("a\n...\nd", "a\nb\nc\nd\n", True),
        ("a\n...\nd", "a\nd\n", True),
        ("a ... c", "a b\nc\n", False),
        ("a", "a\nb\n", False),
        ("{\n  ...\n}", "{\n  1\n}", True),
    ],
)
def test_three_dots_stand_for_anything_in_a_line_or_for_any_lines(expected: str, actual: str, does_match: bool) -> None:
    assert matches(expected, actual) is does_match
