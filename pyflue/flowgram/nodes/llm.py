"""The llm node: one question to a model, and the text of its answer.

With `apiHost` and `apiKey` any server that speaks OpenAI's Chat Completions is asked, as FlowGram's own runtime does.
Without both, `modelName` names a model as agents do: `anthropic/claude-haiku-4-5`.
"""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlsplit

from ..asking import ModelRefused, Question, Unreachable, asker
from ..exceptions import NodeError, text_of
from ..executing import Call, ExecutionResult
from ..network import addresses_of
from ..values import as_text

_REQUIRED = ("modelName", "apiKey", "apiHost", "prompt", "temperature")


async def execute_llm(call: Call) -> ExecutionResult:
    """Ask the model of an llm node."""
    inputs = call.inputs
    host = None if _is_named(inputs) else await _checked_host(inputs)
    question = Question(
        model=str(inputs["modelName"]),
        prompt=as_text(inputs.get("prompt")),
        system_prompt=as_text(inputs.get("systemPrompt")),
        temperature=_temperature(inputs.get("temperature")),
        api_host=host,
        api_key=str(inputs.get("apiKey") or ""),
    )
    if not question.prompt:
        raise NodeError("LLM node missing required inputs: 'prompt'")
    ask = await asyncio.to_thread(asker)  # the first time this imports a provider's library
    try:
        return ExecutionResult({"result": await ask(question)})
    except Unreachable as error:
        raise NodeError(f'Network error: unreachable api "{host or question.model}"') from error
    except ModelRefused as error:
        raise NodeError(text_of(error)) from error


def _is_named(inputs: dict[str, Any]) -> bool:
    """Whether the model is one of the project's: `provider/model`, and nothing that says where it is."""
    name = inputs.get("modelName")
    return isinstance(name, str) and "/" in name and not inputs.get("apiHost") and not inputs.get("apiKey")


async def _checked_host(inputs: dict[str, Any]) -> str:
    missing = [name for name in _REQUIRED if inputs.get(name) is None or inputs.get(name) == ""]
    if missing:
        raise NodeError(f"LLM node missing required inputs: {', '.join(map(repr, missing))}")
    host = str(inputs["apiHost"])
    try:
        parts = urlsplit(host)
        port = parts.port
    except ValueError:
        raise NodeError(f"Invalid API host - '{host}'") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise NodeError(f"Invalid API host - '{host}'")
    try:
        await addresses_of(parts.hostname, port or (443 if parts.scheme == "https" else 80))
    except OSError as error:
        raise NodeError(f'Network error: unreachable api "{host}"') from error
    return host


def _temperature(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
