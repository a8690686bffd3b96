"""Who holds which right and from whom, what GRANT and REVOKE would make of it, and the statements that undo exactly that."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from opsagent_jupyter.models import Json
from opsagent_jupyter.plugins.postgresql.changes.privileges import MEMBER, Subject
from opsagent_jupyter.plugins.postgresql.connection import Row
from opsagent_jupyter.plugins.postgresql.roles import Role

Key = tuple[int, int, str, int, int]


@dataclass(frozen=True, order=True)
class Entry:
    """One right as the catalog keeps it: who may do what with which object, who gave it, and whether it may be passed on."""

    oid: int
    sub: int
    """A column's number, 0 for the whole object."""
    privilege: str
    grantee: int
    """0 for PUBLIC."""
    grantor: int
    grantable: bool = False
    inherit: bool | None = None
    """Of a membership from release 16: whether its rights count without SET ROLE."""
    set: bool | None = None
    column: str = field(default="", compare=False)

    @property
    def key(self) -> Key:
        """What there is only once."""
        return (self.oid, self.sub, self.privilege, self.grantee, self.grantor)


class Entries:
    """The rights on some objects at one moment."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._held = {entry.key: entry for entry in entries}

    @classmethod
    def read(cls, rows: Iterable[Row]) -> Entries:
        """From the rows of ``acl_entries.sql``."""
        return cls(Entry(**row) for row in rows)

    def __iter__(self) -> Iterator[Entry]:
        return iter(sorted(self._held.values(), key=lambda entry: entry.key))

    def of(self, grantee: int) -> list[Entry]:
        """What one role was given directly."""
        return [entry for entry in self if entry.grantee == grantee]

    def granted(self, wanted: Iterable[Entry]) -> Entries:
        """What they would be after GRANT: an entry that is there can only gain the right to pass it on."""
        held = dict(self._held)
        for entry in wanted:
            there = held.get(entry.key)
            held[entry.key] = replace(there, grantable=there.grantable or entry.grantable) if there else entry
        return Entries(held.values())

    def revoked(self, unwanted: Iterable[Entry], owners: Mapping[int, int], *, option_only: bool) -> Entries:
        """What they would be after REVOKE ... CASCADE: who can pass a right on no longer loses what came from it too."""
        held = dict(self._held)
        ahead = [(entry.key, option_only) for entry in unwanted]
        while ahead:
            key, only_option = ahead.pop()
            there = held.pop(key, None)
            if there is None:
                continue
            if only_option:
                held[key] = replace(there, grantable=False)
            if there.grantable and not _passes_on(held.values(), there, owners):
                ahead += [(each.key, False) for each in held.values() if _came_from(each, there)]
        return Entries(held.values())

    def lost(self, after: Entries) -> list[Entry]:
        """The entries that are gone afterwards."""
        return [entry for key, entry in sorted(self._held.items()) if key not in after._held]

    def freed(self, after: Entries) -> list[Entry]:
        """The entries that can be passed on no longer."""
        held = after._held
        return [e for key, e in sorted(self._held.items()) if key in held and e.grantable and not held[key].grantable]

    def difference(self, after: Entries) -> dict[str, Json]:
        """What changed, as plain values: for the card, the post-check and the audit."""
        return {
            "added": [list(entry.key) for entry in after.lost(self)],
            "removed": [list(entry.key) for entry in self.lost(after)],
            "grantable": [list(entry.key) for entry in after.freed(self)],
            "not_grantable": [list(entry.key) for entry in self.freed(after)],
        }


def _came_from(entry: Entry, source: Entry) -> bool:
    return (entry.oid, entry.sub, entry.privilege, entry.grantor) == (
        source.oid, source.sub, source.privilege, source.grantee
    )  # fmt: skip


def _passes_on(held: Iterable[Entry], entry: Entry, owners: Mapping[int, int]) -> bool:
    """Whether a role can still pass a right on: as the owner, or because somebody else let it."""
    if owners.get(entry.oid) == entry.grantee:
        return True
    right = (entry.oid, entry.sub, entry.privilege, entry.grantee)
    return any(each.grantable and each.key[:4] == right for each in held)


@dataclass(frozen=True)
class Reach:
    """Which roles' rights count for a role, and which of them we can act as."""

    names: Mapping[int, str]
    """Every role, as a statement names it."""
    reached: frozenset[int]
    reached_names: frozenset[str]
    ours: frozenset[int]
    ourself: int
    creates: bool
    """Whether we may make roles."""

    @classmethod
    def read(cls, rows: Sequence[Row]) -> Reach:
        """From the rows of ``role_reach.sql``."""
        return cls(
            {0: "PUBLIC", **{row["oid"]: row["written"] for row in rows}},
            frozenset(row["oid"] for row in rows if row["reached"]),
            frozenset(row["name"] for row in rows if row["reached"]),
            frozenset(row["oid"] for row in rows if row["ours"]),
            next(row["oid"] for row in rows if row["ourself"]),
            next(row["creates"] for row in rows if row["ourself"]),
        )

    def name(self, oid: int) -> str:
        """A role as a statement names it."""
        return self.names.get(oid, f"(role {oid})")


#: Rights that come with a predefined role, whatever the object says: by class and privilege.
_PREDEFINED: Mapping[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "relation": (
        ("pg_read_all_data", ("SELECT",)),
        ("pg_write_all_data", ("INSERT", "UPDATE", "DELETE")),
        ("pg_maintain", ("MAINTAIN",)),
    ),
    "schema": (("pg_read_all_data", ("USAGE",)), ("pg_write_all_data", ("USAGE",))),
}

Sources = dict[tuple[int, int, str], list[str]]


def sources(entries: Entries, subject: Subject, role: Role, reach: Reach) -> Sources:
    """Why a role has each right: by object, column and privilege, in words; nothing where it has it not."""
    found: Sources = defaultdict(list)
    for item in subject.items:
        for privilege in subject.privileges:
            found[item.oid, item.sub, privilege] += _inherent(subject, privilege, role, reach)
    subs: dict[int, list[int]] = defaultdict(list)
    for item in subject.items:
        subs[item.oid].append(item.sub)
    for entry in entries:
        if entry.privilege not in subject.privileges or not (entry.grantee == 0 or entry.grantee in reach.reached):
            continue
        # object 0 holds what is promised for the tables of every schema
        oid = entry.oid or subject.items[0].oid
        for sub in subs.get(oid, ()):
            if entry.sub in (0, sub):
                found[oid, sub, entry.privilege].append(_through(entry, sub, role, reach))
    return {key: list(dict.fromkeys(texts)) for key, texts in found.items()}


def _inherent(subject: Subject, privilege: str, role: Role, reach: Reach) -> list[str]:
    """What gives a right without being asked: a superuser's, and the predefined roles'."""
    if role.superuser:
        return [f"{role.name} is a superuser"]
    given = (name for name, privileges in _PREDEFINED.get(subject.klass, ()) if privilege in privileges)
    return [f"{role.name} has {name}" for name in given if name in reach.reached_names]


def _through(entry: Entry, sub: int, role: Role, reach: Reach) -> str:
    whole = " for the whole table" if sub and not entry.sub else ""
    if entry.grantee == role.oid:
        given = f"granted by {reach.name(entry.grantor)}" if entry.grantor else "granted"
        by = "it is the owner" if entry.grantor == entry.grantee else given
        return f"{by}{whole}"
    owner = " (the owner)" if entry.grantor == entry.grantee else ""
    return f"through {reach.name(entry.grantee)}{owner}{whole}"


def regrant(subject: Subject, entries: Sequence[Entry], reach: Reach) -> list[str]:
    """The statements that give entries back, each as the role that gave it."""
    return _written(subject, entries, reach, "GRANT")


def revoke(subject: Subject, entries: Sequence[Entry], reach: Reach, *, option_only: bool = False) -> list[str]:
    """The statements that take entries away again, each as the role that gave it."""
    return _written(subject, entries, reach, "REVOKE", option_only=option_only)


def _written(
    subject: Subject, entries: Sequence[Entry], reach: Reach, verb: str, *, option_only: bool = False
) -> list[str]:
    groups: dict[tuple[int, int, bool, int], list[Entry]] = defaultdict(list)
    for entry in _sources_first(entries):
        groups[entry.grantor, entry.grantee, entry.grantable and verb == "GRANT", entry.oid].append(entry)
    merged: dict[tuple[int, str], list[str]] = defaultdict(list)
    for (grantor, grantee, grantable, oid), group in groups.items():
        head = _clause(subject, group, verb, option_only=option_only)
        tail = f"{'TO' if verb == 'GRANT' else 'FROM'} {reach.name(grantee)}{_options(group[0], grantable=grantable)}"
        merged[grantor, f"{head}\0{tail}"].append(_object(subject, oid))
    found = []
    for (grantor, text), objects in merged.items():
        head, tail = text.split("\0")
        found.append(_spoken(subject, grantor, f"{head}{_on(subject, objects)} {tail}", reach))
    return found


def _sources_first(entries: Sequence[Entry]) -> list[Entry]:
    """Entries in an order in which each can be granted: who passed a right on gets it back before."""
    ordered: list[Entry] = []
    rest = list(entries)
    while rest:
        ready = [entry for entry in rest if not any(_came_from(entry, other) for other in rest)] or rest
        ordered += ready
        rest = [entry for entry in rest if entry not in ready]
    return ordered


def _spoken(subject: Subject, grantor: int, statement: str, reach: Reach) -> str:
    if subject.maker is not None:
        place = subject.schema["written"] if subject.schema else ""
        return f"ALTER DEFAULT PRIVILEGES FOR ROLE {subject.maker.written} IN SCHEMA {place} {statement}"
    owners = {item.owner for item in subject.items}
    known = grantor in reach.ours and (grantor in owners or grantor == reach.ourself or subject.granted is not None)
    plain = known or grantor == 0
    return statement if plain else f"SET ROLE {reach.name(grantor)};\n{statement};\nRESET ROLE"


def _clause(subject: Subject, group: Sequence[Entry], verb: str, *, option_only: bool) -> str:
    if subject.granted is not None:
        return f"{verb} {'ADMIN OPTION FOR ' if option_only else ''}{subject.granted.written}"
    columns: dict[str, list[str]] = defaultdict(list)
    for entry in group:
        columns[entry.privilege] += [entry.column] if entry.sub else []
    whole = [entry.privilege for entry in group if not entry.sub]
    parts = [*whole, *(f"{p} ({', '.join(named)})" for p, named in columns.items() if named)]
    return f"{verb} {'GRANT OPTION FOR ' if option_only else ''}{', '.join(parts)}"


def _object(subject: Subject, oid: int) -> str:
    if subject.kind == "all_tables":
        return next(item.written for item in subject.items if item.oid == oid)
    return ""


def _on(subject: Subject, objects: Sequence[str]) -> str:
    if subject.granted is not None:
        return ""
    if subject.kind == "all_tables":
        return f" ON TABLE {', '.join(dict.fromkeys(objects))}"
    return f" ON {subject.on}"


def _options(entry: Entry, *, grantable: bool) -> str:
    if entry.privilege != MEMBER:
        return " WITH GRANT OPTION" if grantable else ""
    if entry.inherit is None or (not grantable and entry.inherit and entry.set):
        return " WITH ADMIN OPTION" if grantable else ""
    words = (("ADMIN", grantable), ("INHERIT", entry.inherit), ("SET", entry.set))
    return " WITH " + ", ".join(f"{word} {str(bool(value)).upper()}" for word, value in words)
