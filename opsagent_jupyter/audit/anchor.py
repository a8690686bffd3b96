"""Where the chain in the store begins: at its first row of all, or after what retention has archived and removed.

A prune is recorded in the chain before the first row goes, with the last row that may go and its hash. So what is left is
one chain with what was archived, and rows that are missing at the beginning without such a record are a gap like any other.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

from opsagent_jupyter.audit import chain
from opsagent_jupyter.contracts import Store
from opsagent_jupyter.errors import AuditTampered
from opsagent_jupyter.models import PRUNED, PRUNED_STATUS, AuditRow

T = TypeVar("T")


class Anchor(NamedTuple):
    """The row that the store's first one follows."""

    seq: int
    hash: str


class Prune(NamedTuple):
    """A recorded prune: the place of the record, the last row that may go, and its hash."""

    seq: int
    last: int
    head: str


BEGINNING = Anchor(0, chain.GENESIS)


def anchor_of(store: Store) -> Anchor:
    """What the store's first row has to follow: the beginning, unless a record in the chain vouches for a later one."""
    first = store.audit_rows(0, 1)
    if not first or first[0].seq == 1:
        return BEGINNING
    found = Anchor(first[0].seq - 1, first[0].prev_hash)
    return found if any(_vouches(store, prune, found) for prune in prunes_of(store)) else BEGINNING


def prunes_of(store: Store) -> Iterator[Prune]:
    """The prunes that the store's rows record, the newest first."""
    before = None
    while rows := store.audit_page(before=before, limit=20, filters={"status": PRUNED_STATUS}):
        yield from (prune for row in rows if (prune := _prune_of(row)))
        before = rows[-1].seq


def _prune_of(row: AuditRow) -> Prune | None:
    """What a row records; None when it is no prune, or one that somebody has edited to nonsense."""
    try:
        event = json.loads(row.body)
        if event["type"] == PRUNED:
            return Prune(row.seq, int(event["details"]["last"]), str(event["details"]["head"]))
    except (ValueError, KeyError, TypeError):
        pass
    return None


def _vouches(store: Store, prune: Prune, found: Anchor) -> bool:
    """Rows go one after the other, so a prune that was broken off has left some that it may still remove."""
    if prune.last == found.seq:
        return prune.head == found.hash
    return prune.last > found.seq and [row.hash for row in store.audit_rows(prune.last - 1, 1)] == [prune.head]


def steady(store: Store, work: Callable[[], T]) -> T:
    """Do a walk through the chain; again if a prune took rows away under it, which would look like a gap."""
    while True:
        begun = anchor_of(store)
        try:
            return work()
        except AuditTampered:
            if anchor_of(store) == begun:
                raise
