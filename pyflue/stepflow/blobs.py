"""Where blobs are kept: values and flow documents under the SHA-256 of their compact text.

`MemoryBlobs` for flows that run without a journal, `JournalBlobs` on shelves of the journal that all runs share: a flow
that one run has stored is there for the next. The type is no part of the id, so each type has a shelf of its own.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Set
from typing import TYPE_CHECKING, Any, Protocol

from .. import codec
from .content import canonical_bytes, is_content_id
from .document import Flow, read_flow
from .plugins.port import BlobType
from .sizes import LARGE, aside, is_larger

if TYPE_CHECKING:
    from ..journal import Journal

#: How many flows are kept as they were read.
_FLOWS = 256


class Shelves(Protocol):
    """Keeps bytes by type and id."""

    async def put(self, blob_id: str, data: bytes, blob_type: BlobType) -> None: ...
    async def get(self, blob_id: str, blob_type: BlobType) -> bytes | None: ...


class BlobsFull(ValueError):
    """There is no room for a value, because all that is kept may still be needed."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(
            f"There is no room left for blobs: {limit_bytes:,} bytes are kept in memory, and runs under way may need "
            "them. Raise `stateStore.maxBlobBytes`, or keep them on disk with `stateStore: {type: sqlite}`."
        )


class MemoryShelves:
    """In memory, as long as this object lives.

    With a limit, what was used least lately goes when that is reached, but none of the ids that `needed` gives.
    """

    def __init__(
        self,
        *,
        limit_bytes: int | None = None,
        needed: Callable[[], Set[str]] = frozenset,
        on_drop: Callable[[], None] = lambda: None,
    ) -> None:
        self._limit_bytes = limit_bytes
        self._needed = needed
        self._on_drop = on_drop
        self._bytes = 0
        #: What was used last is the last.
        self._kept: OrderedDict[tuple[BlobType, str], bytes] = OrderedDict()

    async def put(self, blob_id: str, data: bytes, blob_type: BlobType) -> None:
        """Keep a blob.

        Raises:
            BlobsFull
        """
        key = blob_type, blob_id
        if key not in self._kept:
            if self._limit_bytes is not None and self._bytes + len(data) > self._limit_bytes:
                self._make_room(len(data), self._limit_bytes)
            self._bytes += len(data)
            self._kept[key] = data
        self._kept.move_to_end(key)

    async def get(self, blob_id: str, blob_type: BlobType) -> bytes | None:
        key = blob_type, blob_id
        data = self._kept.get(key)
        if data is not None:
            self._kept.move_to_end(key)
        return data

    def _make_room(self, size: int, limit_bytes: int) -> None:
        needed = self._needed()
        # More than is wanted, so that the next ones need not look again.
        enough = limit_bytes - size - limit_bytes // 8
        dropped: list[tuple[BlobType, str]] = []
        for key, data in self._kept.items():
            if self._bytes <= enough:
                break
            if key[1] not in needed:
                dropped.append(key)
                self._bytes -= len(data)
        for key in dropped:
            del self._kept[key]
        if dropped:
            self._on_drop()
        if self._bytes + size > limit_bytes:
            raise BlobsFull(limit_bytes)


class JournalShelves:
    """In a journal."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def put(self, blob_id: str, data: bytes, blob_type: BlobType) -> None:
        await self._journal.keep_blob(_shelf(blob_type), data)

    async def get(self, blob_id: str, blob_type: BlobType) -> bytes | None:
        return await self._journal.blob(_shelf(blob_type), f"sha256:{blob_id}")


class Blobs:
    """Values and flows on shelves."""

    def __init__(self, shelves: Shelves) -> None:
        self._shelves = shelves
        self._flows: OrderedDict[str, Flow] = OrderedDict()
        #: What came of storing flows, by their text.
        self.known: dict[bytes, Any] = {}

    async def put(self, data: Any, blob_type: BlobType) -> str:
        """Keep a JSON value and return its id.

        Raises:
            ValueError: it is to be a flow and is none, or it is no JSON value; BlobsFull.
        """
        blob_id, raw = await aside(_written, data, blob_type, is_large=is_larger(data, LARGE))
        await self._shelves.put(blob_id, raw, blob_type)
        return blob_id

    async def get(self, blob_id: str) -> tuple[Any, BlobType]:
        """A value and what it was stored as.

        Raises:
            ValueError: not an id; LookupError: there is none.
        """
        check_id(blob_id)
        for blob_type in (BlobType.FLOW, BlobType.DATA):
            raw = await self._shelves.get(blob_id, blob_type)
            if raw is not None:
                return await aside(codec.load, raw, is_large=len(raw) > LARGE), blob_type
        raise LookupError(f"There is no blob {blob_id}.")

    async def flow(self, flow_id: str) -> Flow:
        """A flow that was stored, as either type.

        Raises:
            ValueError: not an id, or not a flow; LookupError: there is none.
        """
        known = self._flows.get(flow_id)
        if known is not None:
            self._flows.move_to_end(flow_id)
            return known
        value, _ = await self.get(flow_id)
        if not isinstance(value, Mapping):
            raise ValueError(f"Blob {flow_id} is not a flow.")
        flow = await aside(read_flow, value, is_large=is_larger(value, LARGE))
        self._flows[flow_id] = flow
        if len(self._flows) > _FLOWS:
            self._flows.popitem(last=False)
        return flow


class BlobsOfRun(Blobs):
    """The blobs as one run sees them: notes which it has used."""

    def __init__(self, blobs: Blobs, used: set[str]) -> None:
        self._blobs = blobs
        self._used = used

    async def put(self, data: Any, blob_type: BlobType) -> str:
        blob_id = await self._blobs.put(data, blob_type)
        self._used.add(blob_id)
        return blob_id

    async def get(self, blob_id: str) -> tuple[Any, BlobType]:
        found = await self._blobs.get(blob_id)
        self._used.add(blob_id)
        return found

    async def flow(self, flow_id: str) -> Flow:
        flow = await self._blobs.flow(flow_id)
        self._used.add(flow_id)
        return flow


def _written(data: Any, blob_type: BlobType) -> tuple[str, bytes]:
    """The id of a value, and its text.

    Raises:
        ValueError: as `Blobs.put`.
    """
    if blob_type is BlobType.FLOW:
        read_flow(data)
    raw = canonical_bytes(data)
    return hashlib.sha256(raw).hexdigest(), raw


def check_id(blob_id: str) -> None:
    """Refuse what cannot be an id.

    Raises:
        ValueError
    """
    if not is_content_id(blob_id):
        raise ValueError(f"{blob_id[:100]!r} is not a blob id: that is 64 hexadecimal digits.")


def _shelf(blob_type: BlobType) -> str:
    return f"stepflow:{blob_type.value}"
