"""The samples with agents: through the command line, with the prepared answers that `make demo` shows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pyflue import codec

from .sample_runs import ROOT, RunSample


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Chooses the file of answers."""
    return lambda name: monkeypatch.setenv("PYFLUE_MODEL", f"scripted/examples/answers/{name}.json")


def test_summarize_returns_the_summary(run_sample: RunSample, answers: Any) -> None:
    answers("summarize")
    ran = run_sample("summarize", {"text": "…", "audience": "children"})

    assert ran.result == {
        "summary": "A workflow is a file, and a run of it is a journal. "
        "Whatever dies, the run goes on from its last line."
    }
    assert [entry["text"] for entry in ran.events["operation_start"]] == [
        "Summarize this text. Audience: children.\n\n…"
    ]
    said, overridden = ran.events["log"]
    assert said == {"level": "info", "message": "summarizing", "audience": "children", "characters": 1}
    assert (overridden["level"], overridden["model"]) == ("warn", "scripted/examples/answers/summarize.json")


def test_review_document_reads_the_document_and_writes_its_findings(run_sample: RunSample, answers: Any) -> None:
    answers("review_document")
    document = codec.load((ROOT / "examples" / "data" / "review.json").read_bytes())
    ran = run_sample("review_document", document)

    assert ran.result == {
        "review": "# Review\n\n- Line 3 says that the move begins on Monday, line 5 that it begins on Tuesday.\n"
        "- Line 4: nobody is named who has the keys.\n",
        "lines": 5,
    }
    read, found, written = ran.events["tool_end"]
    assert [call["tool"] for call in ran.events["tool_end"]] == ["read", "grep", "write"]
    assert read["result"] == document["document"]
    assert found["result"] == (
        "document.md:3:The move begins on Monday at eight.\n"
        "document.md:5:On Tuesday, when the move begins, the lift is reserved."
    )
    assert (written["result"], written["is_error"]) == ("Wrote review.md", False)


def test_review_document_fails_if_there_is_no_review(run_sample: RunSample, answers: Any) -> None:
    answers("summarize")
    ran = run_sample("review_document", {"document": "…"})

    assert (ran.exit_code, ran.status) == (1, "failed")
    assert (ran.error["type"], list(ran.error["details"])) == ("no_review", ["answer"])


def test_classify_ticket_answers_with_data(run_sample: RunSample, answers: Any) -> None:
    answers("classify_ticket")
    ran = run_sample("classify_ticket", {"ticket": "Nobody can log in since noon."})

    assert ran.result == {"priority": "urgent", "summary": "Nobody has been able to log in since noon."}


@pytest.mark.parametrize(
    ("name", "payload"),
    [
        ("summarize", {"text": "…"}),
        ("review_document", {"document": "…"}),
        ("classify_ticket", {"ticket": "…"}),
    ],
)
def test_without_a_key_a_sample_makes_nothing_up(
    name: str, payload: Any, run_sample: RunSample, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    monkeypatch.delenv("PYFLUE_MODEL", raising=False)
    ran = run_sample(name, payload)

    assert (ran.exit_code, ran.status, ran.error["type"]) == (1, "failed", "model_key_missing")


def test_the_demo_shows_both_runs_and_the_model_that_was_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYFLUE_JOURNAL_URL", f"sqlite:///{tmp_path / 'journal.db'}")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    done = subprocess.run(
        ["bash", str(ROOT / "examples" / "demo.sh")], capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 0, done.stderr
    commands = [line for line in done.stdout.splitlines() if line.startswith("$ ")]
    assert [command.partition("run ")[0] for command in commands if " run " in command] == [
        "$ pyflue ",
        "$ PYFLUE_MODEL=scripted/examples/answers/review_document.json pyflue ",
    ]
    assert done.stdout.count("run_end      status=completed") == 2
    assert "The model of this agent is overridden" in done.stdout
