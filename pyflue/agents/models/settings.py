"""What a factory of models is handed. How a provider is reached is read in `pyflue/settings.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ...settings import ProviderSettings

__all__ = ["ModelSetup", "ProviderSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSetup:
    """What a factory makes a model of. A plug-in's factory gets exactly this."""

    #: As agents name it: `openai/gpt-5`.
    id: str
    #: The part before the first `/` or `:`.
    provider: str
    #: The part after it, in the provider's words.
    name: str
    settings: ProviderSettings = field(default_factory=ProviderSettings)
    #: Variables; keys are read from here, never from the process behind the caller's back.
    env: Mapping[str, str] = field(repr=False)
    #: The project folder, for models that are files.
    root: Path
