"""Which files become workflows, and under which names."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pyflue.errors import WorkflowInvalid, WorkflowNotFound
from pyflue.workflows import Catalog, Diagnostic, Dialect
from tests.promises import promise

from .conftest import ProjectFolder


class SuffixLoader:
    """Claims files by suffix; loads nothing."""

    def __init__(self, suffix: str) -> None:
        self.suffix = suffix

    def claims(self, path: Path) -> bool:
        return path.suffix == self.suffix

    def load(self, source):
        raise AssertionError("nothing is loaded here")


def dialect(kind: str, suffix: str) -> Dialect:
    return Dialect(kind=kind, loader=SuffixLoader(suffix))


@promise("guide.file-name")
def test_files_below_the_workflow_folders_get_dotted_names(project: ProjectFolder) -> None:
    project.write("src/workflows/echo.py")
    project.write("src/workflows/orders/refund-all.py")
    project.write("workflows/other.py")
    project.write(".pyflue/workflows/made.py")
    catalog = project.catalog()
    assert catalog.names() == ["echo", "made", "orders.refund-all", "other"]
    assert catalog.diagnostics() == []


def test_hidden_and_underscored_files_and_folders_are_left_out(project: ProjectFolder) -> None:
    project.write("src/workflows/echo.py")
    for name in ("_helper.py", "__init__.py", "_lib/text.py", ".hidden.py", ".git/hook.py", "__pycache__/echo.py"):
        project.write(f"src/workflows/{name}")
    project.write("src/workflows/README.md")
    catalog = project.catalog()
    assert catalog.names() == ["echo"]
    assert catalog.diagnostics() == []


def test_a_project_without_workflow_folders_has_no_workflows(project: ProjectFolder) -> None:
    catalog = project.catalog()
    assert (catalog.names(), catalog.entries(), catalog.diagnostics()) == ([], [], [])


@pytest.mark.parametrize("name", ["a b.py", "ünïcode.py", "a.b.py", "-dash.py", "sp ace/x.py", "new\nline.py"])
def test_a_name_that_does_not_fit_into_a_url_is_a_diagnostic(project: ProjectFolder, name: str) -> None:
    project.write(f"src/workflows/{name}")
    catalog = project.catalog()
    assert catalog.names() == []
    [diagnostic] = catalog.diagnostics()
    assert "cannot be a workflow name" in diagnostic.message
    assert diagnostic.path.isprintable()


def test_a_name_of_more_than_128_characters_is_a_diagnostic(project: ProjectFolder) -> None:
    project.write(f"src/workflows/{'a' * 64}/{'b' * 63}.py")
    project.write(f"src/workflows/{'a' * 64}/{'b' * 64}.py")
    catalog = project.catalog()
    assert catalog.names() == [f"{'a' * 64}.{'b' * 63}"]
    assert [diagnostic.message for diagnostic in catalog.diagnostics()] == [
        "Its workflow name has 129 characters; the limit is 128."
    ]


def test_of_two_folders_with_one_name_the_first_wins_and_the_other_is_named(project: ProjectFolder) -> None:
    first = project.write("src/workflows/echo.py")
    project.write("workflows/echo.py")
    project.write(".pyflue/workflows/echo.py")
    catalog = project.catalog()
    assert [entry.path for entry in catalog.entries()] == [first]
    message = "Workflow 'echo' is also in src/workflows/echo.py, which is the one that is used."
    assert catalog.diagnostics() == [
        Diagnostic(path="workflows/echo.py", message=message),
        Diagnostic(path=".pyflue/workflows/echo.py", message=message),
    ]


@promise("F33")
def test_of_two_files_in_one_folder_with_one_name_neither_is_served(project: ProjectFolder) -> None:
    project.write("workflows/echo.one")
    project.write("workflows/echo.two")
    project.write("workflows/fine.one")
    catalog = project.catalog(dialects=[dialect("one", ".one"), dialect("two", ".two")])
    with pytest.raises(WorkflowInvalid, match=r"^workflows/echo.one: workflows/echo.two gives the same workflow name"):
        catalog.find("echo")
    assert [diagnostic.path for diagnostic in catalog.diagnostics()] == ["workflows/echo.one"]
    assert catalog.names() == ["echo", "fine"]


def test_two_claimants_of_one_file_is_an_error(project: ProjectFolder) -> None:
    project.write("workflows/echo.one")
    catalog = project.catalog(dialects=[dialect("first", ".one"), dialect("second", ".one")])
    [entry] = catalog.entries()
    assert (entry.kind, entry.workflow) == ("first, second", None)
    with pytest.raises(WorkflowInvalid, match="more than one kind of workflow claims this file: first, second"):
        catalog.find("echo")


def test_a_loader_that_fails_to_look_at_a_file_hides_no_others(project: ProjectFolder) -> None:
    class Failing(SuffixLoader):
        def claims(self, path: Path) -> bool:
            raise RuntimeError("no idea")

    project.write("workflows/echo.one")
    catalog = project.catalog(dialects=[Dialect(kind="bad", loader=Failing("")), dialect("one", ".one")])
    assert catalog.names() == ["echo"]
    assert catalog.diagnostics() == [
        Diagnostic(path="workflows/echo.one", message="The bad loader failed on it: RuntimeError: no idea")
    ]


def test_links_that_lead_out_of_the_project_are_not_followed(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", ProjectFolder(tmp_path / "project")
    outside.mkdir()
    (outside / "secret.py").write_text("")
    root.write("src/workflows/echo.py")
    root.write("src/workflows/_real.py")
    folder = root.root / "src/workflows"
    (folder / "leak.py").symlink_to(outside / "secret.py")
    (folder / "leaks").symlink_to(outside)
    (folder / "alias.py").symlink_to(folder / "_real.py")
    (folder / "around").symlink_to(folder)
    catalog = root.catalog()
    assert catalog.names() == ["alias", "echo"]
    message = "It is a link that leads out of the project and is not followed."
    assert catalog.diagnostics() == [
        Diagnostic(path="src/workflows/leak.py", message=message),
        Diagnostic(path="src/workflows/leaks", message=message),
    ]


@promise("F32")
@given(name=st.text() | st.from_regex(r"(\.\./)*[a-z_./%]{0,20}"))
@example(name="../x")
@example(name="%2e%2e%2f")
@example(name="orders/refund")
@example(name="orders.refund.py")
@example(name="CON")
@example(name="")
@example(name="e" * 10_000)
@example(name="\u0435cho")  # a Cyrillic look-alike
@example(name="echo\x00")
@example(name="Echo")
@example(name="_private")
@example(name="_lib.text")
@example(name="__init__")
@example(name="/etc/passwd")
def test_only_discovered_names_resolve(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """F32: names are looked up, never made into paths."""
    catalog = _catalog_with_tricks(tmp_path_factory)
    if name in {"echo", "orders.refund"}:
        assert catalog.find(name).name == name
    else:
        with pytest.raises(WorkflowNotFound) as caught:
            catalog.find(name)
        assert len(str(caught.value)) < 400


_CATALOGS: list[Catalog] = []


def _catalog_with_tricks(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    if not _CATALOGS:
        project = ProjectFolder(tmp_path_factory.mktemp("tricks"))
        project.write("x.py")
        for file in ("echo.py", "orders/refund.py", "_private.py", "_lib/text.py", "__init__.py"):
            project.write(f"src/workflows/{file}")
        _CATALOGS.append(project.catalog())
    return _CATALOGS[0]
