"""What nodes do, by their type."""

from __future__ import annotations
