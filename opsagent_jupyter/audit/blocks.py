"""The fast way through the chain: thousands of rows by the column. It only ever says "all well" or "look closer".

Whatever a row is that is not as rows are, the answer here is None, and the caller goes through the rows one by one, which
finds the row and says what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa

from opsagent_jupyter.contracts import Store
from opsagent_jupyter.errors import StoreError

#: Rows of a block: enough that the questions cost nothing, few enough to stay in the processor's cache.
BLOCK = 4096
#: The input of derive.sql.
LINKS = pa.schema([("seq", pa.int64()), *((name, pa.string()) for name in ("event_id", "body", "prev_hash", "hash"))])
#: Characters of an event's id, and of a hash.
ID, HASH = 32, 64


@runtime_checkable
class ShowsBlocks(Protocol):
    """A store that gives its rows by the column."""

    def audit_block(self, after: int, limit: int, *, beside: bool = False) -> Mapping[str, Any]:
        """Return rows with seq > after as one row: count, first, last and plain (how many are of the right types); event_id,
        body, prev_hash and hash, each joined to one text of bytes; lengths of the bodies, with commas; least_ and most_
        characters of event_id, prev_hash and hash; and beside, lines: the filter columns as one text, with a line feed after
        each row."""


class Block(NamedTuple):
    """Rows that verify: in Arrow, their last place and hash, and their filter columns when those were asked for."""

    rows: pa.RecordBatch
    seq: int
    hash: str
    lines: bytes


def block_after(store: Store, seq: int, prev_hash: str, limit: int = BLOCK, *, beside: bool = False) -> Block | None:
    """The rows that follow (seq, prev_hash) in the chain; None when there are none, or none that verify at a glance."""
    if not isinstance(store, ShowsBlocks) or len(prev_hash) != HASH:  # the first row of all has another predecessor
        return None
    try:
        found = store.audit_block(seq, limit, beside=beside)
    except StoreError:  # texts that are too long to be joined, or cannot be decoded
        return None
    return _verified(found, seq, prev_hash) if found["count"] else None


def _verified(found: Mapping[str, Any], seq: int, prev_hash: str) -> Block | None:
    count = found["count"]
    if not _is_regular(found, seq):
        return None
    hashes, bodies = found["hash"], found["body"]
    if found["prev_hash"] != prev_hash.encode() + hashes[:-HASH]:
        return None
    ends = np.cumsum(np.fromstring(found["lengths"], np.int64, sep=","))
    if len(ends) != count or ends[-1] != len(bodies) or len(bodies) > 2**31 - 1:
        return None
    if not _is_linked(found, seq, ends.tolist()):
        return None
    rows = _arrow(found, seq, ends)
    return None if rows is None else Block(rows, seq + count, hashes[-HASH:].decode(), found.get("lines", b""))


def _is_regular(found: Mapping[str, Any], seq: int) -> bool:
    """No gap, no other type, and every id and hash as long as it should be: else the joined texts could hide a shift."""
    count = found["count"]
    widths = (("event_id", ID), ("prev_hash", HASH), ("hash", HASH))
    return (found["first"], found["last"], found["plain"]) == (seq + 1, seq + count, count) and all(
        found[f"least_{name}"] == found[f"most_{name}"] == width and len(found[name]) == width * count
        for name, width in widths
    )


def _is_linked(found: Mapping[str, Any], seq: int, ends: list[int]) -> bool:
    """Every hash is that of its predecessor's and its body, and every body names its own place."""
    bodies, previous = found["body"], _with_line_feeds(found["prev_hash"])
    digests, start = [], 0
    for number, end in enumerate(ends):
        body = bodies[start:end]
        if b'"seq":%d,' % (seq + number + 1) not in body:
            return False
        place = number * (HASH + 1)
        digests.append(sha256(previous[place : place + HASH + 1] + body).digest())
        start = end
    return bool(b"".join(digests).hex().encode() == found["hash"])


def _with_line_feeds(hashes: bytes) -> bytes:
    """A line feed after each hash, as the chain's definition has it."""
    table = np.frombuffer(hashes, np.uint8).reshape(-1, HASH)
    return np.pad(table, ((0, 0), (0, 1)), constant_values=ord("\n")).tobytes()


def _arrow(found: Mapping[str, Any], seq: int, ends: Any) -> pa.RecordBatch | None:
    """The block without a copy; None when a text is not UTF-8."""
    count = found["count"]
    widths = {"event_id": ID, "prev_hash": HASH, "hash": HASH}
    arrays = [pa.array(np.arange(seq + 1, seq + count + 1))]
    for name in LINKS.names[1:]:
        stops = np.arange(1, count + 1) * widths[name] if name in widths else ends
        offsets = np.concatenate(([0], stops)).astype(np.int32)
        arrays.append(pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(found[name])))
    batch = pa.record_batch(arrays, schema=LINKS)
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid:
        return None
    return batch
