"""The sample workflow `word_report`, through the command line."""

from __future__ import annotations

from .sample_runs import RunSample

_TEXT = """\
Words before any heading stand under an empty title.

# Harvest

The harvest was early. Nobody had expected the harvest in July, and the barns were full!

- Apples were small.
- Pears were not.

```python
code = "is not prose"
```

## Empty

## Prices

Prices fell. They fell again.
"""


def test_it_reports_each_section_and_the_whole(run_sample: RunSample) -> None:
    ran = run_sample("word_report", {"text": _TEXT, "words_per_minute": 100})

    assert (ran.exit_code, ran.status) == (0, "completed")
    assert ran.result == {
        "words": 36,
        "reading_minutes": 0.4,
        "longest_sentence": "Nobody had expected the harvest in July and the barns were full",
        "frequent_words": {"harvest": 2}
        | dict.fromkeys(["words", "before", "heading", "stand", "under", "empty", "title", "early", "nobody"], 1),
        "sections": [
            {"title": "", "words": 9, "sentences": 1, "words_per_sentence": 9.0},
            {"title": "Harvest", "words": 22, "sentences": 4, "words_per_sentence": 5.5},
            {"title": "Prices", "words": 5, "sentences": 2, "words_per_sentence": 2.5},
        ],
    }


def test_its_record_grows_section_by_section(run_sample: RunSample) -> None:
    ran = run_sample("word_report", {"text": _TEXT})

    assert ran.events["section"] == ran.result["sections"]
    assert [entry["fraction"] for entry in ran.events["progress"]] == [0.333333, 0.666667, 1]


def test_a_long_sentence_is_a_warning_in_the_record(run_sample: RunSample) -> None:
    ran = run_sample("word_report", {"text": "# Rules\n\nAnd so " + "it goes on and " * 12 + "on."})

    assert [(entry["level"], entry["section"], entry["words"]) for entry in ran.events["log"]] == [
        ("warn", "Rules", 51)
    ]


def test_it_reads_a_file_of_the_project(run_sample: RunSample) -> None:
    ran = run_sample("word_report", {"path": "CONTRIBUTING.md"})

    assert ran.result["sections"][0]["title"] == "Set-up"
    assert ran.result["frequent_words"]


def test_a_text_without_words_fails_with_a_type_of_its_own(run_sample: RunSample) -> None:
    ran = run_sample("word_report", {"text": "```\ncode\n```"})

    assert (ran.exit_code, ran.error["type"]) == (1, "no_words")
