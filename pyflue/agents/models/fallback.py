"""Several models as one: the next is asked when one cannot be reached.

It moves on within one attempt, before any text was streamed, for failures that another provider may not have: the
provider is down, overloaded or limits us, there is no key for it, or no such model. It does not move on for what is
wrong with the request itself (too long, refused, a key that is not accepted). If none answers, the failure that is
worth another try is raised, so that the turn loop tries the whole list again later.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Sequence

from msgspec.structs import replace

from ...errors import ModelError, ModelFailed, ModelKeyMissing, ModelUnknown
from .port import Model, ModelReply, ModelRequest, StreamItem, TextDelta

PROVIDER = "fallback"


class FallbackModel:
    """The first of its models that answers. The reply's `model` is the full id of the one who did: `openai/gpt-5`."""

    provider = PROVIDER

    def __init__(self, models: Sequence[Model]) -> None:
        if not models:
            raise ValueError("FallbackModel(models): at least one model is wanted.")
        self._models = tuple(models)

    @property
    def models(self) -> tuple[Model, ...]:
        """In the order in which they are asked."""
        return self._models

    @property
    def id(self) -> str:
        return " | ".join(model.id for model in self._models)

    @property
    def context_tokens(self) -> int | None:
        """What even the smallest of them takes."""
        return min((model.context_tokens for model in self._models if model.context_tokens), default=None)

    @property
    def has_schema_mode(self) -> bool:
        return all(model.has_schema_mode for model in self._models)

    async def stream(self, request: ModelRequest) -> AsyncGenerator[StreamItem]:
        failed: list[ModelError] = []
        for model in self._models:
            has_spoken = False
            try:
                async with contextlib.aclosing(model.stream(request)) as items:
                    async for item in items:
                        if isinstance(item, ModelReply):
                            item = replace(
                                item, model=f"{model.provider}/{item.model.removeprefix(f'{model.provider}/')}"
                            )
                        has_spoken = has_spoken or isinstance(item, TextDelta)
                        yield item
                return
            except (ModelFailed, ModelKeyMissing, ModelUnknown) as error:
                if has_spoken or (isinstance(error, ModelFailed) and not _is_passing(error)):
                    raise
                failed.append(error)
        raise _worth_another_try(failed)

    async def close(self) -> None:
        for model in self._models:
            await model.close()


def _is_passing(error: ModelFailed) -> bool:
    status = error.provider_status or 0
    return error.is_retryable or status == 429 or status >= 500


def _worth_another_try(failed: Sequence[ModelError]) -> ModelError:
    """The retryable failure whose time comes first, or else the first failure."""
    retryable = [error for error in failed if isinstance(error, ModelFailed) and error.is_retryable]
    return min(retryable, key=lambda error: error.retry_after_s or 0.0, default=failed[0])
