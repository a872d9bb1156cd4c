"""What PyFlue promises, as data: an id, where the promise comes from, and the sentence.

A test carries the id of the promise it shows (`@promise("R1")`). `test_promises.py` checks that every promise has a
test and that every id in a test is listed here. The rows named F.. are faults and bad inputs with their correct
outcome.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest


class Promise(NamedTuple):
    """A promise and its source."""

    source: str
    sentence: str


_GUIDE = "the workflows guide"
_SDK_GUIDE = "the guide to Stepflow's Python packages"
_CONTRACT = "durability contract"
_OURS = "ours"
_FAULTS = "faults and bad inputs"

PROMISES: dict[str, Promise] = {
    "guide.file-name": Promise(_GUIDE, "A module in src/workflows/ or workflows/ with run(ctx) is a workflow."),
    "guide.context": Promise(_GUIDE, "ctx has id, payload, env, req and log; ctx.log works without await."),
    "guide.run.local": Promise(_GUIDE, "`pyflue run` executes one run and prints the result."),
    "guide.run.accepted": Promise(_GUIDE, "POST answers 202 with exactly status and run_id."),
    "guide.run.wait": Promise(_GUIDE, "POST with ?wait=result answers 200 with status, run_id and result."),
    "guide.run.stream": Promise(_GUIDE, "POST with Accept: text/event-stream streams events until completion."),
    "guide.run.client": Promise(_GUIDE, "PyFlueClient.workflows.invoke(..., wait=True) returns the body."),
    "guide.run.websocket": Promise(_GUIDE, "A workflow WebSocket carries one run: payload in, events and result out."),
    "guide.record": Promise(
        _GUIDE, "A run has an id workflow:<name>:<ulid> and records payload, result or error, events."
    ),
    "guide.prompt": Promise(_GUIDE, "A workflow initializes an agent, prompts a session and returns what it says."),
    "guide.files": Promise(_GUIDE, "harness.fs stages files, the agent works on them, no conversation hears of it."),
    "guide.result": Promise(_GUIDE, "With result= the agent returns data that satisfies the model."),
    "guide.key-missing": Promise(_OURS, "Without a key a prompt ends in model_key_missing, with both ways out."),
    "agentflow.file": Promise(
        _OURS, "A file with a @workflow class is a workflow; of several, `workflow` names the one."
    ),
    "agentflow.durable": Promise(_OURS, "Each step of a class is a durable step, and its state is recorded with it."),
    "agentflow.approval": Promise(_OURS, "A step that needs an approval waits for it as any approval, over restarts."),
    "agentflow.child": Promise(_OURS, "A child workflow is a child run, which only its own file's runs can start."),
    "agentflow.same": Promise(
        _OURS, "As a library, by `pyflue run`, over HTTP and killed: the same result, each step once."
    ),
    "stepflow.seed": Promise(_SDK_GUIDE, "The quick start works with other imports, embedded and on a server."),
    "stepflow.lazy": Promise(_OURS, "A flow does exactly the steps whose values are needed, each once."),
    "stepflow.durable": Promise(_OURS, "Each step of a flow, and of each item, is a durable step known by its place."),
    "stepflow.resume": Promise(
        _OURS, "A flow that is stopped anywhere and goes on comes to the same; no finished component call is repeated."
    ),
    "stepflow.kill": Promise(_OURS, "A server killed with -9 in its flows goes on, with each recorded step once."),
    "stepflow.blob-ids": Promise(_OURS, "Blobs have the ids that the original documents."),
    "stepflow.mcp": Promise(_OURS, "An MCP server that others have made is a plugin of components."),
    "stepflow.crash": Promise(_OURS, "What the crash of a component server interrupts is sent once more, not oftener."),
    "stepflow.faults": Promise(
        _OURS,
        "Components that hang, crash, flood, answer garbage or twice, or leave children fail as documented; no process "
        "is left, and other calls go on.",
    ),
    "stepflow.environment": Promise(
        _OURS, "A component server has the environment that is listed, and tells none of it."
    ),
    "stepflow.files": Promise(_OURS, "A flow reads plain files below its working directory, and no others."),
    "stepflow.yaml": Promise(
        _OURS, "YAML is read by its core schema; what is ambiguous, doubled or a bomb is refused with line and column."
    ),
    "R1": Promise(_CONTRACT, "202 is sent after the run is on disk."),
    "R2": Promise(_CONTRACT, "A step's result is on disk before the next step starts."),
    "R3": Promise(_CONTRACT, "A run has at most one result for a step's key."),
    "R4": Promise(_CONTRACT, "Event indexes are dense from 1, with exactly one run_end, last."),
    "R5": Promise(_CONTRACT, "A reader that resumes after n gets n+1 … exactly once each, across restarts."),
    "R6": Promise(_CONTRACT, "After a restart every non-final run is running, waiting or final."),
    "R7": Promise(_CONTRACT, "Cancel and complete race: one wins, all readers see the same."),
    "R8": Promise(_CONTRACT, "No event and no state is shown that is not committed."),
    "R9": Promise(_CONTRACT, "A late write of a superseded attempt is refused."),
    "F01": Promise(_FAULTS, "kill -9 after the 202: every accepted run exists and reaches one final state."),
    "F02": Promise(_FAULTS, "kill -9 in a step: recorded steps run once, only the one in flight may run again."),
    "F03": Promise(_FAULTS, "kill -9 around a step's record: events and records of steps agree."),
    "F04": Promise(_FAULTS, "kill -9 while a run waits: it goes on when it is answered or its time comes."),
    "F05": Promise(_FAULTS, "SIGTERM with running runs: stops in time, hands them back, exit code 0."),
    "F06": Promise(_FAULTS, "A restart storm duplicates and fails nothing."),
    "F07": Promise(_FAULTS, "A run that ends its process fails with crash_loop; others are unaffected."),
    "F08": Promise(_FAULTS, "A full disk refuses new runs, keeps reads working, and is recovered from."),
    "F09": Promise(_FAULTS, "A read-only journal is refused with one clear line."),
    "F10": Promise(_FAULTS, "A journal locked by another process: wait, then 503; the event loop is not blocked."),
    "F11": Promise(_FAULTS, "A corrupted journal is named at start and left as it is."),
    "F12": Promise(_FAULTS, "A truncated or deleted WAL does not keep the journal from opening."),
    "F13": Promise(_FAULTS, "Journals of every released schema are migrated, with a copy made first."),
    "F14": Promise(_FAULTS, "A journal of a newer schema is not written."),
    "F15": Promise(_FAULTS, "Two engines on one journal: never two owners of a run."),
    "F16": Promise(_FAULTS, "Clock jumps: durations stay positive, ids ordered."),
    "F18": Promise(_FAULTS, "The same Idempotency-Key starts one run; another payload with it is 422."),
    "F19": Promise(_FAULTS, "Cancel racing completion ends in one state, the same for every reader."),
    "F20": Promise(_FAULTS, "Two decisions, or one after a cancel: the first counts, with one effect."),
    "F21": Promise(_FAULTS, "A run of 100,000 events is stored and read."),
    "F22": Promise(_FAULTS, "Readers that never read cost little, are closed, and slow nobody down."),
    "F23": Promise(_FAULTS, "A stream cut anywhere resumes without gap or repeat."),
    "F24": Promise(_FAULTS, "A reader that leaves is freed; its run goes on."),
    "F25": Promise(_FAULTS, "WebSocket floods are closed with the right code; one run at most."),
    "F26": Promise(_FAULTS, "An oversized or compressed body is refused before it is read."),
    "F27": Promise(_FAULTS, "Deep JSON is 400 too_deep."),
    "F28": Promise(_FAULTS, "NaN and infinities are refused, in payloads and results."),
    "F29": Promise(_FAULTS, "Huge integers are kept exactly or refused."),
    "F30": Promise(_FAULTS, "Lone surrogates, NUL and bidi marks never crash anything."),
    "F31": Promise(_FAULTS, "A result JSON cannot hold fails the run, naming the place."),
    "F32": Promise(_FAULTS, "Only discovered names resolve, whatever a name tries."),
    "F33": Promise(_FAULTS, "A bad workflow file harms no other."),
    "F37": Promise(_FAULTS, "Runaway commands end in time and in bounds, and no process is left."),
    "F36": Promise(_FAULTS, "Shell injection: what is allowed brings nothing else along."),
    "F38": Promise(_FAULTS, "Secrets and variables of the host are found nowhere."),
    "F43": Promise(_FAULTS, "Injected tool calls: policy, schemas, budgets and people decide, never text."),
    "F44": Promise(_FAULTS, "Cross-site requests change nothing."),
    "F45": Promise(_FAULTS, "Foreign Host and Origin are refused, WebSockets before accept."),
    "F46": Promise(_FAULTS, "No request gets past the tokens."),
    "F47": Promise(_FAULTS, "Abusive headers and connections are cut off; health still answers."),
    "F48": Promise(_FAULTS, "Markup and control characters are shown as text."),
    "flowgram.rules": Promise(_OURS, "Graphs behave as FlowGram's runtime does, but for what is a fault there."),
    "flowgram.once": Promise(
        _OURS, "Random graphs with branches, loops and joins run each reachable node exactly once per iteration."
    ),
    "flowgram.resume": Promise(_OURS, "A graph that is stopped anywhere and goes on gives the same report."),
    "flowgram.kill": Promise(
        _OURS, "A graph killed with -9, between and inside of nodes and iterations, repeats no finished node."
    ),
    "flowgram.editor": Promise(_OURS, "The paths and bodies of the editor's server client work on a project's server."),
    "flowgram.code": Promise(
        _OURS, "A script ends within its limits, reaches nothing outside, and never holds up the event loop."
    ),
    "flowgram.network": Promise(_OURS, "Graphs reach public and allowed addresses only, whatever names say later."),
    "flowgram.memory": Promise(_OURS, "Nothing is kept of finished runs in a library."),
    "flowgram.secrets": Promise(_OURS, "Keys that are written into graphs are in no answer about a run."),
    "agents.resume": Promise(_OURS, "A killed prompt goes on after its last recorded turn and tool call."),
    "agents.answers": Promise(_OURS, "Data of the wanted type comes back as that type, or an error says why not."),
    "agents.approval": Promise(_OURS, "A tool call that needs approval is made once, as approved, or not at all."),
    "agents.budget": Promise(_OURS, "Budgets hold per call, agent and run, over subagents and restarts."),
    "agents.cancel": Promise(_OURS, "A cancel in the middle of model work is final within 2 s; nothing is left."),
    "agents.compaction": Promise(_OURS, "A long conversation is summarised; tool uses stay with their results."),
    "agents.events": Promise(_OURS, "Events of model work carry ids that belong together, and agree with the answer."),
    "agents.isolation": Promise(_OURS, "Runs, harnesses and sessions see nothing of one another, nor of the host."),
    "agents.secrets": Promise(_OURS, "A secret reaches the commands of the call it was granted to, and no record."),
    "agents.live": Promise(_OURS, "Text arrives while a model writes it; late readers get all of it, from offset 0."),
    "agents.unknown-outcome": Promise(
        _OURS, "A tool that is not idempotent and was interrupted is not repeated; the model is told."
    ),
}


def promise(*promise_ids: str) -> Callable[[Any], Any]:
    """Mark a test as showing promises."""

    def mark(test: Any) -> Any:
        for promise_id in promise_ids:
            assert promise_id in PROMISES, f"{promise_id} is not in tests/promises.py"
            test = pytest.mark.promise(promise_id)(test)
        return test

    return mark
