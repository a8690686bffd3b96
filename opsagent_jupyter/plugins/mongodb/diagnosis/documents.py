"""Documents: those near the limit, arrays that grow without end, data that should expire, and space to give back."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from opsagent_jupyter.errors import (
    Cancelled,
    DatabaseError,
    DeadlineExceeded,
    InvalidArguments,
    MissingRight,
    OpsAgentError,
)
from opsagent_jupyter.models import Suggestion
from opsagent_jupyter.plugins.findings import Finding, Severity, Survey
from opsagent_jupyter.plugins.mongodb import names
from opsagent_jupyter.plugins.mongodb.connection import Database, Document
from opsagent_jupyter.plugins.mongodb.diagnosis import scope
from opsagent_jupyter.plugins.mongodb.reads.collections import WORTH_BYTES, WORTH_SHARE, measured
from opsagent_jupyter.plugins.wording import count, percent, plural, size

#: Bytes of a document and entries of an array from which on it is worth telling, and a serious case. The limit is 16 MB.
LARGE, HUGE = 1024**2, 8 * 1024**2
LONG, ENDLESS = 1_000, 10_000
LIMIT = 16 * 1024**2
#: Collections that are sampled, the largest first; documents of a sample; seconds of one.
SAMPLED, SAMPLE, SECONDS = 20, 200, 1.0
#: Documents from which on data that should expire is worth telling.
MANY = 10_000

_SHORT_LIVED = re.compile(
    r"session|token|log|event|cache|tmp|temp|audit|notification|message_queue|otp|metric", re.IGNORECASE
)
_EXPIRES = re.compile(r"^(expires?|expiry|expiration)(_?(at|on|date|time))?$", re.IGNORECASE)
_DATED = re.compile(
    r"^(ts|timestamp|time|date|at|created?(_?(at|on|date))?|inserted_?at|last_?(seen|used|access))$", re.IGNORECASE
)


@dataclass(frozen=True)
class Sample:
    """What a sample of a collection shows; no value of a document is in it."""

    collection: names.Collection
    stats: Document
    largest: int
    """Bytes of the largest document of the sample."""
    arrays: dict[str, int]
    """Field to the most entries that an array of it has."""
    dates: tuple[str, ...]
    """Fields that hold dates."""


async def survey(db: Database) -> Survey:
    """Sample the largest collections."""
    places, notes = await scope.databases(db)
    found: list[tuple[names.Collection, Document]] = []
    for place in places:
        found += await _sized(db, place)
    found.sort(key=lambda pair: -pair[1].get("size", 0))
    findings: list[Finding] = []
    said = list(notes)
    looks = await asyncio.gather(*(_looked(db, collection, stats) for collection, stats in found[:SAMPLED]))
    for each in looks:
        findings += each.findings
        said += each.notes
    findings += [finding for collection, stats in found for finding in _space(collection, stats)]
    if len(found) > SAMPLED:
        said.append(f"Only the {SAMPLED} largest of {len(found)} collections were sampled.")
    return Survey(tuple(findings), tuple(said))


async def _looked(db: Database, collection: names.Collection, stats: Document) -> Survey:
    try:
        sample = await _sampled(db, collection, stats)
        indexes = await names.indexes(db, collection)
    except (MissingRight, DeadlineExceeded, Cancelled, DatabaseError, InvalidArguments) as error:
        return Survey(notes=(f"Documents of {collection.shown} were not sampled: {error.message}",))
    return Survey((*_sizes(sample), *_expiring(sample, indexes)))


async def _sized(db: Database, place: str) -> list[tuple[names.Collection, Document]]:
    """The collections of a database with their figures; those that cannot be measured are left out."""
    own = [each for each in await names.collections(db, place) if each.kind == "collection" and not each.is_system]

    async def tried(each: names.Collection) -> Document | None:
        try:
            return await measured(db, each)
        except OpsAgentError:
            return None

    sizes = await asyncio.gather(*(tried(each) for each in own))
    return [(each, stats) for each, stats in zip(own, sizes, strict=True) if stats is not None]


#: Sizes and names of fields only: what stands in the documents stays on the server.
_FIELDS: Document = {"$objectToArray": "$$ROOT"}
_MEASURE: list[Document] = [
    {"$sample": {"size": SAMPLE}},
    {"$project": {"_id": 0, "size": {"$bsonSize": "$$ROOT"}, "fields": _FIELDS}},
    {
        "$project": {
            "size": 1,
            "arrays": {
                "$map": {
                    "input": {"$filter": {"input": "$fields", "as": "f", "cond": {"$isArray": "$$f.v"}}},
                    "as": "f",
                    "in": {"k": "$$f.k", "n": {"$size": "$$f.v"}},
                }
            },
            "dates": {
                "$map": {
                    "input": {
                        "$filter": {"input": "$fields", "as": "f", "cond": {"$eq": [{"$type": "$$f.v"}, "date"]}}
                    },
                    "as": "f",
                    "in": "$$f.k",
                }
            },
        }
    },
]


async def _sampled(db: Database, collection: names.Collection, stats: Document) -> Sample:
    command = {"aggregate": collection.name, "pipeline": _MEASURE}
    rows = await db.documents(collection.database, command, seconds=SECONDS)
    arrays: dict[str, int] = {}
    for entry in (entry for row in rows for entry in row["arrays"]):
        arrays[entry["k"]] = max(arrays.get(entry["k"], 0), int(entry["n"]))
    return Sample(
        collection=collection,
        stats=stats,
        largest=max((int(row["size"]) for row in rows), default=0),
        arrays=arrays,
        dates=tuple(dict.fromkeys(name for row in rows for name in row["dates"])),
    )


# -- findings


def _sizes(sample: Sample) -> Iterator[Finding]:
    shown, full = sample.collection.shown, sample.collection.full
    seen = f"in a sample of {SAMPLE} documents"
    if sample.largest >= LARGE:
        yield Finding(
            kind="oversize_document",
            severity=Severity.HIGH if sample.largest >= HUGE else Severity.MEDIUM,
            confidence="likely",
            subject=full,
            title=f"{shown} has documents of {size(sample.largest)} ({percent(sample.largest, LIMIT)} of the limit)",
            evidence=(seen, f"{size(sample.stats.get('avgObjSize', 0))} on average"),
            why="The server refuses a document over 16 MB, and reads the whole of it for each field.",
            advice="Move what grows into a collection of its own, or large contents into GridFS.",
            impact=float(sample.largest),
        )
    for name, most in sample.arrays.items():
        if most >= LONG:
            yield Finding(
                kind="oversize_array",
                severity=Severity.HIGH if most >= ENDLESS else Severity.MEDIUM,
                confidence="likely",
                subject=f"{full}.{name}",
                title=f"The array {name} of {shown} has up to {count(most)} entries",
                evidence=(seen,),
                why="An array without end makes every update slower and ends at the limit of 16 MB.",
                advice="Keep entries as documents of their own, or in buckets of a fixed size ($push with $slice).",
                impact=float(most),
            )


def _expiring(sample: Sample, indexes: Sequence[names.Index]) -> Iterator[Finding]:
    """A field that says when a document expires, or dated documents in a collection that sounds short-lived."""
    if any(index.option("expireAfterSeconds") is not None for index in indexes):
        return
    collection, documents = sample.collection, int(sample.stats.get("count", 0))
    expires = next((name for name in sample.dates if _EXPIRES.match(name)), "")
    dated = next((name for name in sample.dates if _DATED.match(name)), "")
    if expires:
        yield _missing_ttl(collection, documents, expires, sure=True)
    elif dated and documents >= MANY and _SHORT_LIVED.search(collection.name) and not collection.options.get("capped"):
        yield _missing_ttl(collection, documents, dated, sure=False)


def _missing_ttl(collection: names.Collection, documents: int, field: str, *, sure: bool) -> Finding:
    fix = Suggestion(
        tool="mongodb.create_index",
        arguments={
            "collection": collection.name,
            "fields": [field],
            "expire_after": 0,
            "database": collection.database,
        },
        why=f"deletes each document when its {field} has come",
    )
    return Finding(
        kind="missing_ttl",
        severity=Severity.MEDIUM if sure else Severity.INFO,
        confidence="likely" if sure else "possible",
        subject=collection.full,
        title=f"{collection.shown} keeps {plural(documents, 'document')} with {field} and no TTL index",
        evidence=(f"{field} holds a date",),
        why="Documents that should expire stay for ever.",
        advice="A TTL index deletes them; the request says how many at once."
        if sure
        else f"If they are of use for a time only, a TTL index on {field} deletes them after it.",
        fix=fix if sure else None,
        impact=float(documents),
    )


def _space(collection: names.Collection, stats: Document) -> Iterator[Finding]:
    free, stored = stats.get("freeStorageSize", 0), stats.get("storageSize", 0)
    if free > WORTH_BYTES and free > WORTH_SHARE * stored:
        yield Finding(
            kind="reclaimable_space",
            severity=Severity.INFO,
            confidence="certain",
            subject=collection.full,
            title=f"{size(free)} of the {size(stored)} of {collection.shown} on disk are free",
            evidence=(f"{size(stats.get('size', 0))} of data",),
            why="The disk is taken although the data is gone.",
            advice="Compact it, member by member, if the space is needed elsewhere.",
            fix=Suggestion(
                tool="mongodb.compact_collection",
                arguments={"collection": collection.name, "database": collection.database},
                why=f"{size(free)} of its file is free",
            ),
            impact=float(free),
        )
