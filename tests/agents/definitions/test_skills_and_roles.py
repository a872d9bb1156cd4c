"""Skills, roles and commands out of files: found, read with care, and refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyflue.agents import Role, Skill, load_roles, load_skill, load_skills
from pyflue.agents.models.port import ThinkingLevel
from pyflue.agents.skills import parse_skill
from pyflue.errors import AgentInvalid

from .conftest import AgentProject

REVIEW = """\
---
name: review
description: "Reviews code: all of it."
license: MIT
input_schema: {type: object}
---

# Review

Read it twice.
"""


def test_skills_are_found_by_folder_and_by_file_and_their_material_is_none(project: AgentProject) -> None:
    folder = project.root / ".agents/skills"
    project.write(".agents/skills/review/SKILL.md", REVIEW)
    project.write(".agents/skills/review/notes/more.md", "Material.")
    project.write(".agents/skills/review/inner/SKILL.md", "Material, too.")
    project.write(".agents/skills/team/plan.md", "# Plan a day\n\nSlowly.\n")
    project.write(".agents/skills/team/deploy/SKILL.md", "---\n# nothing\n---\nDeploy.\n")
    project.write(".agents/skills/.hidden.md", "Hidden.")
    project.write(".agents/skills/picture.txt", "No skill.")
    assert load_skills(root=project.root) == {
        "review": Skill(
            name="review",
            description="Reviews code: all of it.",
            instructions="# Review\n\nRead it twice.",
            input_schema={"type": "object"},
            path=folder / "review/SKILL.md",
        ),
        "plan": Skill(
            name="plan",
            description="Plan a day",
            instructions="# Plan a day\n\nSlowly.",
            path=folder / "team/plan.md",
        ),
        "deploy": Skill(
            name="deploy", description="Deploy.", instructions="Deploy.", path=folder / "team/deploy/SKILL.md"
        ),
    }


async def test_a_project_without_skills_has_none_and_an_agents_own_wins_over_a_file(project: AgentProject) -> None:
    assert load_skills(root=project.root) == {}
    project.write(".agents/skills/review/SKILL.md", REVIEW)
    mine = Skill(name="review", description="Mine.")
    assert (await project.resolve({"skills": [mine]})).skills == {"review": mine}
    assert list((await project.resolve({})).skills) == ["review"]


def test_one_skill_is_loaded_from_its_file_or_folder(project: AgentProject) -> None:
    file = project.write("kit/review/SKILL.md", REVIEW)
    assert load_skill(file) == load_skill(file.parent) == load_skill("kit/review", root=project.root)
    with pytest.raises(FileNotFoundError):
        load_skill("kit/missing.md", root=project.root)
    with pytest.raises(AgentInvalid, match=r"'\.\./x\.md' leads out of the project"):
        load_skill("../x.md", root=project.root)
    with pytest.raises(AgentInvalid, match="is no path"):
        load_skill("a\0b", root=project.root)


def test_links_are_followed_inside_of_the_project_only(
    project: AgentProject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "SKILL.md").write_text("The password.")
    project.write("kit/review/SKILL.md", REVIEW)
    skills = project.root / ".agents/skills"
    skills.mkdir(parents=True)
    (skills / "inside").symlink_to(project.root / "kit/review")
    (skills / "folder").symlink_to(outside)
    (skills / "file.md").symlink_to(outside / "SKILL.md")
    (skills / "loop").symlink_to(skills)
    assert list(load_skills(root=project.root)) == ["review"]
    with pytest.raises(AgentInvalid, match="leads out of the project"):
        load_skill(".agents/skills/folder", root=project.root)
    (project.root / "elsewhere").symlink_to(outside)
    with pytest.raises(AgentInvalid, match="'elsewhere' leads out of the project"):
        load_skills("elsewhere", root=project.root)


def test_two_skills_of_one_name_are_refused_with_both_files(project: AgentProject) -> None:
    project.write(".agents/skills/a/SKILL.md", REVIEW)
    project.write(".agents/skills/b.md", REVIEW)
    problem = r"\.agents/skills/b\.md: duplicate skill name 'review'; \.agents/skills/a/SKILL\.md has it, too"
    with pytest.raises(AgentInvalid, match=problem):
        load_skills(root=project.root)


@pytest.mark.parametrize(
    ("front_matter", "problem"),
    [
        ("name: [1", r"s\.md: its front matter is not YAML in line 3"),
        ("name: a: b", r"its front matter is not YAML in line 2: mapping values are not allowed here"),
        ("- a", r"must be lines of the form 'key: value'"),
        ("name: a\nname: b", r"in line 3: the key 'name' is there twice"),
        ("a: &x [1]\nname: *x", r"in line 3: aliases \(\*name\) are not read"),
        ("<<: {name: a}\n? [1]\n: 2", r"a key must be text"),
        ("name: !!python/object/apply:os.system [id]", r"could not determine a constructor for the tag"),
        ("a: " + "[" * 3000, r"nested too deep"),
        ("a: " + "9" * 5000, r"a number or date that is none"),
        ("a: 2026-13-45", r"a number or date that is none"),
        ("a: .nan", r"holds something that is not plain text"),
        ("a: 2026-01-01", r"holds something that is not plain text"),
        ("a: " + "x" * 70_000, r"more than 65,536 characters"),
        ("name: 3", r"name is 3; a name has 1 to 64 letters"),
        ("name: ../x", r"name is '\.\./x'"),
        ("description: 3", r"description is 3; it must be a string"),
        ("input_schema: 3", r"input_schema is 3; it must be a mapping"),
    ],
)
def test_front_matter_that_cannot_be_used_is_refused(front_matter: str, problem: str) -> None:
    with pytest.raises(AgentInvalid, match=problem):
        parse_skill(f"---\n{front_matter}\n---\nText.\n", path=Path("s.md"))


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"---\nname: x\n", r"its front matter has no end"),
        (b"\xff\xfe", r"s\.md: the file is not UTF-8 \(byte 0\)"),
        (b"", r"description is ''; it must be a string that is not empty"),
        (b"x" * (1024**2 + 1), r"the file is larger than 1,048,576 bytes"),
    ],
)
def test_a_file_that_is_no_skill_is_refused(project: AgentProject, data: bytes, problem: str) -> None:
    project.write("s.md", "")
    (project.root / "s.md").write_bytes(data)
    with pytest.raises(AgentInvalid, match=problem):
        load_skill("s.md", root=project.root)


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm() -> None:
    text = REVIEW.replace("\n", "\r\n")
    assert parse_skill(text, path=Path("s.md")).name == "review"


def test_roles_are_found_and_read(project: AgentProject) -> None:
    project.write(
        ".agents/roles/critic.md",
        "---\ndescription: Finds faults.\nmodel: anthropic/a\nthinking_level: high\n---\nLook closely.\n",
    )
    project.write(".agents/roles/team/writer.md", "Write well.")
    folder = project.root / ".agents/roles"
    assert load_roles(root=project.root) == {
        "critic": Role(
            name="critic",
            instructions="Look closely.",
            description="Finds faults.",
            model="anthropic/a",
            thinking_level=ThinkingLevel.HIGH,
            path=folder / "critic.md",
        ),
        "writer": Role(name="writer", instructions="Write well.", path=folder / "team/writer.md"),
    }


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", r"instructions is ''"),
        ("---\ntools: [read]\n---\nText.", r"unknown role field 'tools'\. Known are: name, description"),
        ("---\nthinking_level: deep\n---\nText.", r"thinking_level is 'deep'; it must be one of off"),
        ("---\nmodel: 3\n---\nText.", r"model is 3"),
        ("---\nname: a b\n---\nText.", r"name is 'a b'"),
        ("---\ndescription: [1]\n---\nText.", r"description is \[1\]"),
    ],
)
async def test_a_file_that_is_no_role_is_refused_by_name(project: AgentProject, text: str, problem: str) -> None:
    project.write(".agents/roles/critic.md", text)
    with pytest.raises(AgentInvalid, match=rf"\.agents/roles/critic\.md: .*{problem}"):
        await project.resolve({})


def test_two_roles_of_one_name_are_refused(project: AgentProject) -> None:
    project.write(".agents/roles/a/critic.md", "One.")
    project.write(".agents/roles/b/critic.md", "Two.")
    with pytest.raises(AgentInvalid, match=r"roles/b/critic\.md: duplicate role name 'critic'"):
        load_roles(root=project.root)
