"""One answer of a model, for the units of dialects that only want a text: llm nodes of graphs, `/openai` of flows.

Beside `main.py`, because it joins rooms that do not know one another. The client library of a provider makes no
retries here (the turn loop of agents makes its own), so they are made in this place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from .errors import ModelFailed

if TYPE_CHECKING:
    from .agents.models.port import Model, ModelRequest

#: As many as the client libraries of models make by default.
_RETRIES = 2


async def one_answer(
    model: Model, request: ModelRequest, *, is_final: Callable[[ModelFailed], bool] = lambda _: False
) -> str:
    """The text of a model's answer; tried again as often as is usual, unless a failure `is_final`.

    Raises:
        ModelError
    """
    from .agents.content import Text
    from .agents.models.port import ModelReply

    attempt = 0
    while True:
        try:
            async for item in model.stream(request):
                if isinstance(item, ModelReply):
                    return "".join(block.text for block in item.blocks if isinstance(block, Text))
            return ""
        except ModelFailed as error:
            if not error.is_retryable or attempt >= _RETRIES or is_final(error):
                raise
            await asyncio.sleep(error.retry_after_s if error.retry_after_s is not None else 0.5 * 2**attempt)
            attempt += 1
