r"""The audit chain: what exactly is hashed, defined once.

Each row holds ``seq`` (gapless from 1), ``body`` (canonical JSON of the event, with its seq and event_id inside), ``prev_hash``
and ``hash``, where::

    hash = SHA-256(prev_hash || "\n" || body)        in lower-case hexadecimal, over UTF-8; the first prev_hash is "genesis"

so that one line of SQL (``sha256(prev_hash || chr(10) || body)``) or of any script can verify it without this package.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from opsagent_jupyter.errors import AuditTampered
from opsagent_jupyter.models import AuditEvent, AuditRow, canonical

GENESIS = "genesis"


def body_of(event: AuditEvent, seq: int, event_id: str) -> str:
    """Return the hashed text of an event at its place."""
    return canonical({"v": 1, "seq": seq, "event_id": event_id, **event.model_dump(mode="json")})


def link(prev_hash: str, body: str) -> str:
    """Return the hash of a row from its predecessor's hash and its body."""
    return hashlib.sha256(f"{prev_hash}\n{body}".encode()).hexdigest()


def verify(rows: Iterable[AuditRow], seq: int = 0, prev_hash: str = GENESIS) -> tuple[int, str]:
    """Walk rows that follow (seq, prev_hash) and return the last (seq, hash); raise ``AuditTampered(first_bad)``."""
    for place, _, body, before, digest in rows:
        if place != seq + 1:
            raise AuditTampered(f"The audit chain has a gap: {seq} is followed by {place}.", first_bad=seq + 1)
        if before != prev_hash or digest != link(prev_hash, body) or f'"seq":{place},' not in body:
            raise AuditTampered(f"The audit chain is broken at row {place}: it was edited or moved.", first_bad=place)
        seq, prev_hash = place, digest
    return seq, prev_hash
