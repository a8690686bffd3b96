"""Whether whole stretches of the store and of its copy are as they should be: the fast half of verification.

It only ever says "all well" or "look closer": what is wrong, and where, the slow half finds.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from os import cpu_count
from typing import NamedTuple

import duckdb
import numpy as np
import pyarrow as pa

from opsagent_jupyter.audit.blocks import BLOCK, LINKS, Block, block_after
from opsagent_jupyter.audit.queries import sql
from opsagent_jupyter.contracts import Store

#: Rows of a stretch, the work of one thread: a third of what DuckDB keeps together.
STRETCH = 40_960


class Stretch(NamedTuple):
    """Rows that are as they should be if they follow this one (place and hash); the last one's place and hash."""

    after: int
    prev_hash: str
    last: int
    hash: str


class Agreement:
    """Stretches of store and copy, compared by several threads at once."""

    def __init__(self, database: duckdb.DuckDBPyConnection, store: Store, last: int) -> None:
        self._database = database
        self._store = store
        self._last = last

    @contextmanager
    def stretches(self, after: int) -> Iterator[Iterator[tuple[int, Stretch | None]]]:
        """What follows a row, up to the last that was carried: the last place of each stretch, and the stretch unless it
        has to be looked at closer."""
        pool = ThreadPoolExecutor(min(4, cpu_count() or 1), "opsagent-verify")
        try:
            starts = range(after, self._last, STRETCH)
            ends = [min(start + STRETCH, self._last) for start in starts]
            work = [(end, pool.submit(self._stretch, start, end)) for start, end in zip(starts, ends, strict=True)]
            yield ((end, future.result()) for end, future in work)
        finally:
            pool.shutdown(cancel_futures=True)

    def _stretch(self, after: int, last: int) -> Stretch | None:
        before = self._store.audit_rows(after - 1, 1) if after else ()
        if not before or before[0].seq != after:
            return None  # the first row of all is looked at by itself
        with self._database.cursor() as cursor:
            copied = self._copied(cursor, after, last)
        if copied is None:
            return None
        place, head = after, before[0].hash
        while place < last:
            block = block_after(self._store, place, head, min(BLOCK, last - place), beside=True)
            if block is None or not _same(block, copied.slice(place - after, block.seq - place)):
                return None
            place, head = block.seq, block.hash
        return Stretch(after, before[0].hash, last, head)

    def _copied(self, cursor: duckdb.DuckDBPyConnection, after: int, last: int) -> pa.Table | None:
        """The rows of the copy in the order of the file, if every one is what its body says."""
        text = sql("agree").replace("{first}", str(after + 1)).replace("{last}", str(last))
        try:
            table = cursor.sql(text).to_arrow_table()
        except duckdb.Error:  # damage too is for the slow half to explain
            return None
        right = table.num_rows == last - after and all(
            chunk.true_count == len(chunk) for chunk in table["agrees"].chunks
        )
        return table if right else None


def _same(block: Block, copied: pa.Table) -> bool:
    columns = zip(LINKS.names, block.rows.columns, strict=True)
    return _text_of(copied["line"]) == block.lines and all(
        copied[name].equals(pa.chunked_array([column]).cast(copied[name].type)) for name, column in columns
    )


def _text_of(column: pa.ChunkedArray) -> bytes:
    """The texts of a column joined, as bytes."""
    found = []
    for chunk in column.chunks:
        _, offsets, texts = chunk.cast(pa.large_string()).buffers()
        bounds = np.frombuffer(offsets, np.int64)
        if len(chunk):
            found.append(texts[int(bounds[chunk.offset]) : int(bounds[chunk.offset + len(chunk)])].to_pybytes())
    return b"".join(found)
