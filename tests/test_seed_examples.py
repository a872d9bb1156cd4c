"""The examples of the workflows guide, typed in as they stand, against a server that speaks as the provider does.

Nothing between the example and the provider's server is ours to choose: the command line, the client and the real
`anthropic` library are used as a reader of the guide would use them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pyflue.agents.content import Usage

from .docs_pages import Page, blocks_of
from .promises import promise
from .provider_server import ProviderServer, provider_server, say, use_tools
from .provider_server.serving import KEY

SUMMARIZE = """\
from pyflue import FlueContext, create_agent

agent = create_agent(lambda ctx: {"model": "anthropic/claude-haiku-4-5"})


async def run(ctx: FlueContext) -> dict:
    ctx.log.info("summarization started", audience=ctx.payload.get("audience", "general"))
    harness = await ctx.init(agent)
    session = await harness.session()
    response = await session.prompt(f"Summarize this text:\\n\\n{ctx.payload['text']}")
    return {"summary": response.text}
"""

REVIEW_DOCUMENT = """\
from pyflue import FlueContext, create_agent

reviewer = create_agent(lambda ctx: {"model": "anthropic/claude-sonnet-4-6", "cwd": "/workspace"})


async def run(ctx: FlueContext) -> dict:
    harness = await ctx.init(reviewer)
    await harness.fs.write_file("document.md", ctx.payload["document"])

    session = await harness.session()
    await session.prompt("Review document.md and write your findings to review.md.")
    return {"review": await harness.fs.read_file("review.md")}
"""

CLASSIFY_TICKET = """\
from pydantic import BaseModel
from pyflue import FlueContext, create_agent

triage = create_agent(lambda ctx: {"model": "anthropic/claude-sonnet-4-6"})


class Classification(BaseModel):
    priority: str
    summary: str


async def run(ctx: FlueContext) -> dict:
    harness = await ctx.init(triage)
    session = await harness.session()
    result = await session.prompt(ctx.payload["ticket"], result=Classification)
    return result.model_dump()
"""

RUN_LOCALLY = """pyflue run summarize --payload '{"text": "PyFlue workflows are finite operations."}'"""

CLIENT = """\
from pyflue import PyFlueClient

client = PyFlueClient("http://127.0.0.1:2024")
result = await client.workflows.invoke("summarize", {"text": "..."}, wait=True)
print(result["result"]["summary"])
"""

WEBSOCKET = """\
async with client.workflows.connect("summarize") as conn:
    messages = await conn.run({"text": "..."})
"""

_LOOK = """\
await client.close()
print(*(message["type"] for message in messages if message["type"] != "text_delta"))
print(messages[-1]["result"])
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    workflows = folder / "src" / "workflows"
    workflows.mkdir(parents=True)
    (workflows / "summarize.py").write_text(SUMMARIZE, encoding="utf-8")
    (workflows / "review_document.py").write_text(REVIEW_DOCUMENT, encoding="utf-8")
    (workflows / "classify_ticket.py").write_text(CLASSIFY_TICKET, encoding="utf-8")
    return folder


@pytest.fixture
async def summaries(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ProviderServer]:
    """A provider with a summary for everybody."""
    async with provider_server(lambda _: say("They end.", usage=Usage(input_tokens=12, output_tokens=3))) as server:
        lead_to(server, monkeypatch)
        yield server


@pytest.fixture
async def reviews(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ProviderServer]:
    """A provider whose model reads the document, writes a review and says so."""
    answers = [
        use_tools(("read", {"path": "document.md"})),
        use_tools(("write", {"path": "review.md", "content": "Too short."})),
        say("I wrote my findings to review.md."),
    ]
    async with provider_server(answers) as server:
        lead_to(server, monkeypatch)
        yield server


@pytest.fixture
async def classifications(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ProviderServer]:
    """A provider whose model first forgets a field."""
    answers = [say('{"priority": "high"}'), say('{"priority": "high", "summary": "No login."}')]
    async with provider_server(answers) as server:
        lead_to(server, monkeypatch)
        yield server


def lead_to(server: ProviderServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What somebody sets who has a key and a gateway."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", server.anthropic_url)


def show(project: Path, *blocks: str) -> None:
    """Do what the blocks of a page show, and compare what they print."""
    with Page(Path("workflows-guide.md"), project) as page:
        for block in blocks_of("\n\n".join(blocks)):
            page.run(block)


def python(code: str, printed: str = "") -> str:
    return f"```python\n{code}```\n" + (f"```text\n{printed}```\n" if printed else "")


def console(lines: str) -> str:
    return f"```console\n{lines}```\n"


@promise("guide.prompt")
def test_summarize_runs_locally(project: Path, summaries: ProviderServer) -> None:
    show(
        project,
        console(
            f"""$ {RUN_LOCALLY}
run workflow:summarize:...
{{
  "summary": "They end."
}}
$ pyflue logs $(pyflue runs list | awk 'NR == 2 {{print $1}}') --types log,turn,run_end
...  log          info  summarization started audience=general
...  turn         ...claude-haiku-4-5...
...  run_end      status=completed
"""
        ),
    )

    (request,) = summaries.requests
    assert request.headers["user-agent"].startswith("AsyncAnthropic/Python")
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert (request.body["model"], request.body["stream"]) == ("claude-haiku-4-5", True)
    (message,) = request.body["messages"]
    (text,) = message["content"]
    assert (message["role"], text["text"]) == (
        "user",
        "Summarize this text:\n\nPyFlue workflows are finite operations.",
    )


@promise("guide.prompt")
def test_the_client_and_the_websocket_of_the_guide_get_the_summary(project: Path, summaries: ProviderServer) -> None:
    show(
        project,
        console("$ pyflue dev &\n"),
        python(CLIENT, "They end.\n"),
        python(WEBSOCKET),
        python(
            _LOOK,
            "run_start log operation_start turn_request turn operation run_end result\n{'summary': 'They end.'}\n",
        ),
    )

    assert len(summaries.requests) == 2


@promise("guide.prompt")
def test_the_modes_of_the_guide_answer_as_its_table_says(project: Path, summaries: ProviderServer) -> None:
    post = "curl -sN -H 'Content-Type: application/json' -d '{\"text\": \"…\"}'"
    show(
        project,
        console(
            f"""$ pyflue dev &
$ {post} http://127.0.0.1:2024/workflows/summarize
{{"status":"accepted","run_id":"workflow:summarize:..."}}
$ {post} 'http://127.0.0.1:2024/workflows/summarize?wait=result'
{{"status":"completed","run_id":"workflow:summarize:...","result":{{"summary":"They end."}}}}
$ {post} -H 'Accept: text/event-stream' http://127.0.0.1:2024/workflows/summarize | grep ^event
event: run_start
...
event: turn_request
...
event: turn
event: operation
event: run_end
"""
        ),
    )


@promise("guide.files")
def test_review_document_works_on_files(project: Path, reviews: ProviderServer) -> None:
    show(
        project,
        console(
            """$ pyflue run review_document --payload '{"document": "It begins."}'
run workflow:review_document:...
{
  "review": "Too short."
}
"""
        ),
    )

    first, second, third = (request.body for request in reviews.requests)
    assert first["model"] == "claude-sonnet-4-6"
    # What the workflow did by itself is not part of the conversation.
    assert len(first["messages"]) == 1
    assert {"read", "write", "bash"} <= {tool["name"] for tool in first["tools"]}
    assert told(second) == "It begins."
    assert told(third) == "Wrote review.md"


@promise("guide.result")
def test_classify_ticket_gives_data_that_fits_its_type(project: Path, classifications: ProviderServer) -> None:
    show(
        project,
        console(
            """$ pyflue run classify_ticket --payload '{"ticket": "Nobody can log in."}'
run workflow:classify_ticket:...
{
  "priority": "high",
  "summary": "No login."
}
"""
        ),
    )

    first, second = (request.body for request in classifications.requests)
    schema = first["output_config"]["format"]["schema"]
    assert schema["required"] == ["priority", "summary"]
    assert "summary: Field required" in second["messages"][-1]["content"][-1]["text"]


@promise("guide.key-missing")
@pytest.mark.parametrize(
    ("name", "payload", "model"),
    [
        ("summarize", '{"text": "…"}', "claude-haiku-4-5"),
        ("review_document", '{"document": "…"}', "claude-sonnet-4-6"),
        ("classify_ticket", '{"ticket": "…"}', "claude-sonnet-4-6"),
    ],
)
def test_without_a_key_both_ways_out_are_named(
    name: str, payload: str, model: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    show(
        project,
        console(
            f"""$ pyflue run {name} --payload '{payload}' 2>&1 | grep ^error
error: Run workflow:{name}:... failed: model_key_missing: Model anthropic/{model} needs a key, ...
$ pyflue runs show $(pyflue runs list | awk 'NR == 2 {{print $1}}') | grep -A 3 ANTHROPIC
...Set ANTHROPIC_API_KEY, or work without a provider: PYFLUE_MODEL=scripted/hello...
...
"""
        ),
    )


@promise("guide.key-missing")
def test_the_second_way_out_works_and_says_what_it_is(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    show(
        project,
        console(
            f"""$ PYFLUE_MODEL=scripted/hello {RUN_LOCALLY}
run workflow:summarize:...
{{
  "summary": "Hello! I am the scripted model: ..."
}}
$ pyflue logs $(pyflue runs list | awk 'NR == 2 {{print $1}}') --types log
...  log          info  summarization started audience=general
...  log          warn  The model of this agent is overridden (agent.model_override). model=scripted/hello
"""
        ),
    )


def told(request: dict[str, object]) -> str:
    """The text of the last tool result that a request holds."""
    messages: list[dict[str, list[dict[str, object]]]] = request["messages"]  # type: ignore[assignment]  (JSON)
    result = messages[-1]["content"][0]
    assert result["type"] == "tool_result"
    content = result["content"]
    assert isinstance(content, list)
    return content[0]["text"]
