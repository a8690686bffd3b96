"""The conformance kit of a store: every back end runs all of it.

Take it into a test module and say how the store is opened::

    from opsagent_jupyter.testing.store_kit import *

    @pytest.fixture
    def opening(tmp_path):
        return Opening(open_store, f"sqlite:///{tmp_path}/store.db")     # an empty place for each test

``open`` has to be a function that other processes can import.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import statistics
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import aclosing
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, cast

import pytest

from opsagent_jupyter.contracts import Store
from opsagent_jupyter.errors import (
    AlreadyDecided,
    ApprovalError,
    AuditQueryError,
    AuditUnavailable,
    IllegalTransition,
    InstanceExists,
    SecretExpired,
    SecretMissing,
    SecretRevealed,
    SessionBusy,
    StoreError,
    UnknownApproval,
    UnknownInstance,
    UnknownSession,
    VettingUnknown,
    VettingVoid,
)
from opsagent_jupyter.lifecycle import TRANSITIONS, ApprovalState
from opsagent_jupyter.models import AuditRow, CallRecord, FeedEntry, Result, Risk, Table, canonical, now, sha256
from opsagent_jupyter.testing.store_samples import (
    ALICE,
    BOB,
    Opening,
    added,
    claim_all,
    decide_all,
    event,
    host,
    instance,
    message,
    open_and_tell,
    path_to,
    request,
    session,
    vetting,
    write_everything,
)

S = ApprovalState
#: How many processes the races have.
CREW = 6

__all__ = ["Opening", "crew", "store"]


@pytest.fixture
def store(opening: Opening) -> Iterator[Store]:
    """The store under test, empty."""
    opened = opening()
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def crew() -> Iterator[ProcessPoolExecutor]:
    """Processes that wait for work on a store."""
    with ProcessPoolExecutor(CREW, mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(time.sleep, [0.05] * CREW))
        yield pool


def all_at_once(crew: ProcessPoolExecutor, work: Callable[..., Any], calls: list[tuple[Any, ...]]) -> list[Any]:
    """Run one call in each process, all from the same moment on."""
    start = time.time() + 0.7
    futures = [crew.submit(work, *arguments, start) for arguments in calls]
    return [future.result(timeout=120) for future in futures]


def verified(store: Store) -> int:
    """Walk the whole chain by its published rule, and return its length."""
    previous, rows = "genesis", store.audit_rows(0, 100_000)
    for seq, row in enumerate(rows, start=1):
        assert (row.seq, row.prev_hash) == (seq, previous)
        assert row.hash == sha256(f"{previous}\n{row.body}")
        previous = row.hash
    assert store.audit_head() == (len(rows), previous)
    return len(rows)


def gapless(store: Store) -> int:
    """Read the whole feed, and return its length."""
    entries = store.feed(0, 100_000)
    assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))
    assert store.feed_head() == len(entries)
    return len(entries)


def kinds(store: Store, after: int = 0) -> list[tuple[str, str, str]]:
    return [(entry.topic, entry.key, entry.kind) for entry in store.feed(after)]


def traces(store: Store) -> tuple[int, int]:
    """How much has been written: the heads of audit and feed."""
    return store.audit_head()[0], store.feed_head()


# -- audit and feed -------------------------------------------------------------------------------------------------


def test_an_empty_store_begins_at_genesis(store: Store) -> None:
    """Nothing is in the audit or the feed before something happened."""
    assert store.audit_head() == (0, "genesis")
    assert (store.audit_rows(0, 10), store.feed(0), store.feed_head()) == ([], [], 0)


def test_records_are_chained(store: Store) -> None:
    """Each record names its predecessor's hash, whether written alone or with others."""
    assert store.record(event("one")) == 1
    assert store.record(event("two"), event("three")) == 3
    assert verified(store) == 3


def test_a_record_is_one_feed_entry(store: Store) -> None:
    """Events that are recorded together are told together, by the seq of the last."""
    store.record(event("one"), event("two"))
    assert kinds(store) == [("audit", "2", "recorded")]


def test_nothing_recorded_leaves_no_trace(store: Store) -> None:
    """Recording no event changes nothing."""
    assert store.record() == 0
    assert traces(store) == (0, 0)


def test_a_record_is_read_back_whole(store: Store) -> None:
    """The body is the canonical JSON of the event with its place."""
    given = event("call.outcome", risk=Risk.HIGH, arguments={"z": [1, 2.5, None, "ä"], "a": {}}, reason="naïve 'quote'")
    store.record(given)
    (row,) = store.audit_rows(0, 1)
    fields = {"v": 1, "seq": 1, "event_id": row.event_id, **given.model_dump(mode="json")}
    assert row.body == canonical(fields)


def test_the_audit_and_the_feed_resume_from_any_seq(store: Store) -> None:
    """Readers go on where they stopped, in steps of any size."""
    for _ in range(5):
        store.record(event())
    assert [row.seq for row in store.audit_rows(2, 2)] == [3, 4]
    assert [entry.seq for entry in store.feed(3, 10)] == [4, 5]
    assert (store.audit_rows(5, 10), store.feed(5)) == ([], [])


def test_the_audit_pages_backwards(store: Store) -> None:
    """The newest come first, and the next page is what is before the last seen."""
    for _ in range(5):
        store.record(event())
    assert [row.seq for row in store.audit_page(before=None, limit=2, filters={})] == [5, 4]
    assert [row.seq for row in store.audit_page(before=4, limit=10, filters={})] == [3, 2, 1]


FILTERS = {
    "risk": "high",
    "status": "failed",
    "server": "prod-2",
    "instance": "bank",
    "tool": "postgresql.drop_index",
    "session": "s1",
    "approval": "a1",
}


@pytest.mark.parametrize(("name", "value"), FILTERS.items(), ids=list(FILTERS))
def test_the_audit_is_filtered_by(store: Store, name: str, value: str) -> None:
    """A filter keeps the rows that have exactly this value."""
    store.record(event(), event(**{name: value}), event())
    assert [row.seq for row in store.audit_page(before=None, limit=10, filters={name: value})] == [2]
    assert store.audit_page(before=None, limit=10, filters={name: "other"}) == []


@pytest.mark.parametrize("value", ["os:bob", "Bob"])
def test_the_audit_is_filtered_by_actor(store: Store, value: str) -> None:
    """An actor is found by id and by name."""
    store.record(event(), event(actor=BOB))
    assert [row.seq for row in store.audit_page(before=None, limit=10, filters={"actor": value})] == [2]


def test_the_audit_is_filtered_by_time(store: Store) -> None:
    """Since is inclusive, until is not, to the microsecond and in any time zone."""
    first = datetime(2026, 11, 1, 12, 0, 0, 5, tzinfo=UTC)
    times = [first + timedelta(microseconds=step) for step in range(3)]
    store.record(*(event(at=at) for at in times))
    abroad = times[1].astimezone(timezone(timedelta(hours=5, minutes=30))).isoformat()
    filters = {"since": abroad, "until": times[2].isoformat()}
    assert [row.seq for row in store.audit_page(before=None, limit=10, filters=filters)] == [2]


@pytest.mark.parametrize("filters", [{"colour": "red"}, {"since": "yesterday"}, {"until": "2026-11-01T12:00:00"}])
def test_filters_that_make_no_sense_are_refused(store: Store, filters: dict[str, str]) -> None:
    """An unknown filter, an unreadable time and one without a zone are errors, never an unfiltered answer."""
    with pytest.raises(AuditQueryError):
        store.audit_page(before=None, limit=10, filters=filters)


def test_text_that_no_database_can_keep_does_not_stop_the_audit(store: Store) -> None:
    """A NUL or half a surrogate pair, which a model can send, is kept as the replacement character or escaped."""
    store.record(event(tool="x\0y", server="half \ud83d", summary="a\0b \udc00", details={"k": ["\0\ud800"]}))
    assert verified(store) == 1
    assert "\N{REPLACEMENT CHARACTER}" in store.audit_rows(0, 1)[0].body


def test_numbers_that_json_lacks_are_spelled(store: Store) -> None:
    """NaN and infinity, which databases and models send, keep nothing out of the audit or a transcript."""
    odd = [float("nan"), {"most": float("inf")}, float("-inf")]
    store.record(event(details={"load": odd}, arguments={"x": float("nan")}))
    assert '"load":["NaN",{"most":"Infinity"},"-Infinity"]' in store.audit_rows(0, 1)[0].body
    talk = session()
    store.add_session(talk, event())
    table = Table(name="t", columns=("a",), rows=((float("nan"),),), total=1)
    record = CallRecord(
        id="c",
        tool="t",
        arguments={},
        instance="i",
        risk=Risk.LOW,
        status="succeeded",
        result=Result(summary="", tables=(table,)),
    )
    store.append(message(talk.id).model_copy(update={"calls": (record,)}))
    (kept,) = store.messages(talk.id)
    assert kept.calls[0].result is not None
    assert kept.calls[0].result.tables[0].rows == (("NaN",),)


def test_a_record_without_json_is_refused_and_leaves_no_trace(store: Store) -> None:
    """What cannot be written as JSON cannot be audited, so it must not happen."""
    with pytest.raises(AuditUnavailable):
        store.record(event(), event(milliseconds=float("nan")))
    assert traces(store) == (0, 0)


# -- instances ------------------------------------------------------------------------------------------------------


def test_an_instance_is_found_by_name_and_by_id(store: Store) -> None:
    """What was attached is read back whole, and told to the watchers together with its new server."""
    shop = instance(settings={"host": "db", "port": 5432}, environment="staging")
    store.add_instance(shop, {"dsn": "v1.k.token"}, event("instance.attached"))
    assert store.instance("shop") == store.instance(shop.id) == shop
    assert store.credentials(shop.id) == {"dsn": "v1.k.token"}
    assert ("instance", "shop", "attached") in kinds(store)
    assert verified(store) == 1


def test_instances_are_listed_by_name(store: Store) -> None:
    """The order is that of the names' characters, on every database."""
    for name in ("b", "a", "B", "ä"):
        store.add_instance(instance(name), {}, event())
    assert [each.name for each in store.instances()] == ["B", "a", "b", "ä"]


def test_an_instance_name_is_taken_once(store: Store) -> None:
    """The second of a name is refused and leaves no trace."""
    store.add_instance(instance(), {}, event())
    before = traces(store)
    with pytest.raises(InstanceExists):
        store.add_instance(instance(), {}, event())
    assert traces(store) == before


def test_an_unknown_instance_is_named_with_its_neighbours(store: Store) -> None:
    """A typing error is answered with what was probably meant."""
    store.add_instance(instance("shop"), {}, event())
    with pytest.raises(UnknownInstance, match="did you mean shop"):
        store.instance("shopp")
    with pytest.raises(UnknownInstance):
        store.remove_instance("shopp", event())
    with pytest.raises(UnknownInstance):
        store.credentials("nobody")


def test_a_detached_instance_is_forgotten_with_its_credentials(store: Store) -> None:
    """Afterwards the name is free again."""
    shop = instance()
    store.add_instance(shop, {"dsn": "token"}, event())
    store.remove_instance("shop", event("instance.detached"))
    with pytest.raises(UnknownInstance):
        store.credentials(shop.id)
    assert kinds(store)[-1] == ("instance", "shop", "detached")
    store.add_instance(instance(), {}, event())


def test_credentials_of_many_instances_are_replaced_together_or_not_at_all(store: Store) -> None:
    """A rotation that fails half-way has changed nothing."""
    one, two = instance("one"), instance("two")
    for each in (one, two):
        store.add_instance(each, {"dsn": "old"}, event())
    with pytest.raises(UnknownInstance):
        store.replace_credentials({one.id: {"dsn": "new"}, "nobody": {}}, event())
    assert store.credentials(one.id) == {"dsn": "old"}
    store.replace_credentials({one.id: {"dsn": "new"}, two.id: {"dsn": "newer"}}, event("key.rotated"))
    assert (store.credentials(one.id), store.credentials(two.id)) == ({"dsn": "new"}, {"dsn": "newer"})
    assert verified(store) == 3


# -- sessions -------------------------------------------------------------------------------------------------------


def test_a_session_is_found_by_its_id_or_the_beginning_of_it(store: Store) -> None:
    """Four characters are enough when no other session begins with them."""
    talk, other = session(id="abcd1111"), session(id="abcd2222")
    for each in (talk, other):
        store.add_session(each, event("session.started"))
    assert store.session("abcd1111") == store.session("abcd1") == talk
    for wrong in ("abcd", "abc", "zzzz", "", "abcd%", "ABCD1"):
        with pytest.raises(UnknownSession):
            store.session(wrong)
    assert kinds(store)[0] == ("session", "abcd1111", "added")


def test_times_are_kept_to_the_microsecond(store: Store) -> None:
    """A time of another zone comes back as the same moment."""
    at = datetime(2026, 3, 29, 1, 59, 59, 999999, tzinfo=timezone(timedelta(hours=-9, minutes=-30)))
    talk = session(created_at=at, updated_at=at)
    store.add_session(talk, event())
    kept = store.session(talk.id)
    assert (kept.created_at, kept.updated_at, kept.created_at.utcoffset()) == (at, at, timedelta(0))


def test_sessions_are_listed_by_their_last_use(store: Store) -> None:
    """A message brings its session to the top; older pages begin before the last seen."""
    early = now() - timedelta(hours=1)
    old, new = session(updated_at=early), session(updated_at=early + timedelta(minutes=1))
    for each in (old, new):
        store.add_session(each, event())
    assert [each.id for each in store.sessions()] == [new.id, old.id]
    store.append(message(old.id))
    first = store.sessions(limit=1)[0]
    assert first.id == old.id
    assert [each.id for each in store.sessions(before=first.updated_at)] == [new.id]


def test_a_session_is_changed_and_closed(store: Store) -> None:
    """Only what a session may change is taken; closing has its own word in the feed."""
    talk = session()
    store.add_session(talk, event())
    assert store.update_session(talk.id, title="locks").title == "locks"
    assert store.update_session(talk.id, event("session.closed"), closed=True).closed
    assert store.session(talk.id).title == "locks"
    assert [kind for _, _, kind in kinds(store)] == ["added", "changed", "closed"]
    assert verified(store) == 2
    with pytest.raises(TypeError):
        store.update_session(talk.id, created_by="os:mallory")


def test_messages_are_numbered_without_gaps(store: Store) -> None:
    """Each session counts for itself, from one."""
    one, two = session(), session()
    for each in (one, two):
        store.add_session(each, event())
    assert [store.append(message(one.id, text)).seq for text in "abc"] == [1, 2, 3]
    assert store.append(message(two.id)).seq == 1
    assert [each.text for each in store.messages(one.id)] == ["a", "b", "c"]
    assert [each.text for each in store.messages(one.id, after=1, limit=1)] == ["b"]
    assert kinds(store)[-1] == ("message", f"{two.id}:1", "appended")


def test_a_message_without_a_session_is_refused(store: Store) -> None:
    """Nothing is appended to a session that is not there."""
    with pytest.raises(UnknownSession):
        store.append(message("nowhere"))
    assert traces(store) == (0, 0)


def test_a_lease_keeps_others_away_until_it_ends(store: Store) -> None:
    """The holder renews it, another waits for its release or for its end."""
    talk = session()
    store.add_session(talk, event())
    assert store.lease_session(talk.id, "a", 30)
    assert store.lease_session(talk.id, "a", 30)
    assert not store.lease_session(talk.id, "b", 30)
    store.release_session(talk.id, "b")
    assert not store.lease_session(talk.id, "b", 30)
    store.release_session(talk.id, "a")
    assert store.lease_session(talk.id, "b", 0.01) == "free"
    time.sleep(0.02)
    assert store.lease_session(talk.id, "a", 30) == "left"
    assert store.lease_session(talk.id, "a", 30) == "free"
    assert store.renew_session(talk.id, "a", 30)
    store.release_session(talk.id, "a")
    assert not store.renew_session(talk.id, "a", 30)  # somebody may have been there meanwhile
    assert store.lease_session(talk.id, "b", 30) == "free"
    assert not store.renew_session(talk.id, "a", 30)
    with pytest.raises(UnknownSession):
        store.lease_session("nowhere", "a", 1)


def test_who_lost_a_session_writes_nothing_into_it(store: Store) -> None:
    """A message with a holder is kept while the session is in its hands: a host may have slept through its lease."""
    talk = session()
    store.add_session(talk, event())
    with pytest.raises(SessionBusy):
        store.append(message(talk.id), "a")
    store.lease_session(talk.id, "a", 0.01)
    time.sleep(0.02)
    assert store.append(message(talk.id), "a").seq == 1  # nobody else has taken it yet
    store.lease_session(talk.id, "b", 30)
    with pytest.raises(SessionBusy):
        store.append(message(talk.id), "a")
    with pytest.raises(SessionBusy):
        store.append(message(talk.id), "a", event())
    assert store.append(message(talk.id), "b", event()).seq == 2
    with pytest.raises(UnknownSession):
        store.append(message("nowhere"), "a")


# -- approvals ------------------------------------------------------------------------------------------------------


def test_a_request_is_read_back_as_it_was_asked(store: Store) -> None:
    """Every field and the digest survive."""
    asked = request(session="s1", call="c1", reasons=("it writes", "a large table"))
    store.add_approval(asked, event("approval.requested"))
    kept = store.approval(asked.id)
    assert kept == asked
    assert kept.computed_digest() == asked.digest
    assert kinds(store) == [("approval", asked.id, "pending")]
    assert verified(store) == 1


def test_all_pairs_of_states(store: Store) -> None:
    """Of the 144 moves exactly the 16 arrows succeed; the others leave row, audit and feed as they were."""
    taken = {(old, new) for old in S for new in S if moves(store, old, new)}
    assert taken == {(old, new) for old, ends in TRANSITIONS.items() for new in ends}
    assert len(taken) == 16
    verified(store)
    gapless(store)


def moves(store: Store, old: ApprovalState, new: ApprovalState) -> bool:
    """Try one move: one version, one audit event, one feed entry when it succeeds, no trace when it does not."""
    before = added(store, *path_to(old))
    audit, feed = traces(store)
    try:
        after = store.move(before.id, new, event(f"approval.{new}", actor=BOB))
    except (AlreadyDecided, IllegalTransition):
        assert store.approval(before.id) == before
        assert traces(store) == (audit, feed)
        return False
    assert (after.state, after.version) == (new, before.version + 1)
    assert store.approval(before.id) == after
    assert after.computed_digest() == before.digest
    assert traces(store) == (audit + 1, feed + 1)
    assert kinds(store, feed) == [("approval", before.id, str(new))]
    return True


@pytest.mark.parametrize(
    ("old", "new"),
    [(S.APPROVED, S.APPROVED), (S.EXECUTING, S.REJECTED), (S.REJECTED, S.APPROVED), (S.SUCCEEDED, S.EXECUTING)],
)
def test_who_comes_second_learns_who_was_first(store: Store, old: ApprovalState, new: ApprovalState) -> None:
    """The answer has the person, the time and the state as it is now."""
    first = added(store, *path_to(old))
    with pytest.raises(AlreadyDecided, match=r"^Bob (approved|rejected) this request at .*\(UTC\)") as caught:
        store.move(first.id, new, event())
    facts = caught.value.facts
    assert (facts["state"], facts["by"]) == (str(old), "Bob")
    assert datetime.fromisoformat(facts["at"]) == first.decided_at


@pytest.mark.parametrize(("old", "new"), [(S.PENDING, S.SUCCEEDED), (S.PENDING, S.EXECUTING), (S.REJECTED, S.REVOKED)])
def test_a_move_that_was_never_possible_is_illegal(store: Store, old: ApprovalState, new: ApprovalState) -> None:
    """Nobody was first: the table has no such arrow."""
    with pytest.raises(IllegalTransition):
        store.move(added(store, *path_to(old)).id, new, event())


def test_a_move_sets_only_what_goes_with_it(store: Store) -> None:
    """Nothing that the digest binds can be changed on the way."""
    asked = added(store)
    with pytest.raises(TypeError):
        store.move(asked.id, S.APPROVED, event(), arguments={"table": "other"})
    assert store.approval(asked.id) == asked


def test_a_decision_carries_its_person_reason_and_time(store: Store) -> None:
    """What the caller names is kept; the person and the time follow from the event."""
    asked = added(store)
    use_by = now() + timedelta(minutes=5)
    decision = event("approval.approved", actor=BOB)
    approved = store.move(asked.id, S.APPROVED, decision, reason="owner informed", use_by=use_by)
    assert (approved.decided_by, approved.decided_at, approved.reason) == (BOB, decision.at, "owner informed")
    assert approved.use_by == use_by
    row = store.audit_page(before=None, limit=1, filters={"approval": asked.id, "status": "approved"})
    assert len(row) == 1


@pytest.mark.parametrize("new", [S.APPROVED, S.REJECTED])
def test_a_decision_after_the_time_makes_the_request_expire(store: Store, new: ApprovalState) -> None:
    """The late person is told so, and the expiry is audited like any other."""
    asked = added(store, expires_at=now() - timedelta(seconds=1))
    with pytest.raises(AlreadyDecided, match="expired"):
        store.move(asked.id, new, event())
    assert store.approval(asked.id).state is S.EXPIRED
    assert kinds(store)[-1] == ("approval", asked.id, "expired")
    assert verified(store) == 2


def test_unknown_and_ambiguous_requests_are_named(store: Store) -> None:
    """A prefix must be long enough and fit one request; a move wants the whole id."""
    for name in ("abcd1111", "abcd2222"):
        added(store, id=name)
    assert store.approval("abcd1").id == "abcd1111"
    for wrong in ("abcd", "abc", "nobody"):
        with pytest.raises(UnknownApproval):
            store.approval(wrong)
    with pytest.raises(UnknownApproval):
        store.move("abcd1", S.APPROVED, event())
    with pytest.raises(UnknownApproval):
        store.claim("nobody", "host-1", event())


def test_requests_are_listed_newest_first(store: Store) -> None:
    """By state, by session, and in pages."""
    start = now()
    one, two, three = (
        added(store, session=talk, created_at=start + timedelta(seconds=step))
        for step, talk in enumerate(("s1", "s2", "s1"))
    )
    store.move(two.id, S.REJECTED, event())
    assert [each.id for each in store.approvals()] == [three.id, two.id, one.id]
    assert [each.id for each in store.approvals(states=[S.PENDING])] == [three.id, one.id]
    assert [each.id for each in store.approvals(states=[S.REJECTED, S.EXPIRED])] == [two.id]
    assert [each.id for each in store.approvals(session="s1", limit=1)] == [three.id]
    assert [each.id for each in store.approvals(before=two.created_at)] == [one.id]


def test_a_request_is_claimed_once(store: Store) -> None:
    """The first host gets it, the second nothing and no trace."""
    approved = added(store, S.APPROVED)
    claimed = store.claim(approved.id, "host-1", event("call.intent"))
    assert claimed is not None
    assert (claimed.state, claimed.host, claimed.version) == (S.EXECUTING, "host-1", 3)
    assert claimed.claimed_at is not None
    before = traces(store)
    assert store.claim(approved.id, "host-2", event()) is None
    assert traces(store) == before


@pytest.mark.parametrize("state", sorted(set(S) - {S.APPROVED}))
def test_only_an_approved_request_is_claimed(store: Store, state: ApprovalState) -> None:
    """A pending, ended or running request is not to be had."""
    assert store.claim(added(store, *path_to(state)).id, "host-1", event()) is None


def test_an_approval_is_not_claimed_after_its_time(store: Store) -> None:
    """Use-by is checked in the claim itself, whether or not anybody let it expire."""
    asked = added(store)
    store.move(asked.id, S.APPROVED, event(), use_by=now() - timedelta(microseconds=1))
    assert store.claim(asked.id, "host-1", event()) is None
    with pytest.raises(AlreadyDecided, match="expired"):
        store.move(asked.id, S.EXECUTING, event())


def test_an_approval_without_a_use_by_ends_with_its_request(store: Store) -> None:
    """No approval lasts for ever."""
    asked = added(store)
    assert store.move(asked.id, S.APPROVED, event()).use_by == asked.expires_at
    assert [each.id for each in store.expire(asked.expires_at)] == [asked.id]


def test_what_is_overdue_expires(store: Store) -> None:
    """Pending past its expiry, approved past its use-by, and nothing else; each with its audit and its word."""
    at = now() + timedelta(minutes=30)
    late, fresh = added(store, expires_at=at), added(store, expires_at=at + timedelta(microseconds=1))
    unused, usable = added(store), added(store)
    store.move(unused.id, S.APPROVED, event(), use_by=at)
    store.move(usable.id, S.APPROVED, event(), use_by=at + timedelta(microseconds=1))
    audit, feed = traces(store)
    assert {each.id for each in store.expire(at)} == {late.id, unused.id}
    assert store.expire(at) == []
    assert {store.approval(each.id).state for each in (late, unused)} == {S.EXPIRED}
    assert store.approval(fresh.id).state is S.PENDING
    assert store.approval(usable.id).state is S.APPROVED
    assert traces(store) == (audit + 2, feed + 2)
    assert verified(store) == audit + 2


def test_a_newer_request_supersedes_an_older_one(store: Store) -> None:
    """Both changes are one: the old one ends, the new one begins pending."""
    old = added(store, S.APPROVED)
    new = request(supersedes=old.id)
    store.add_approval(new, event("approval.requested"))
    assert store.approval(old.id).state is S.SUPERSEDED
    assert store.approval(new.id).state is S.PENDING
    assert verified(store) == 4


def test_a_running_request_cannot_be_superseded(store: Store) -> None:
    """Then the new request is not kept either, and nothing shows that it was tried."""
    old = added(store, S.APPROVED, S.EXECUTING)
    before = traces(store)
    new = request(supersedes=old.id)
    with pytest.raises(AlreadyDecided):
        store.add_approval(new, event())
    with pytest.raises(UnknownApproval):
        store.approval(new.id)
    assert traces(store) == before


def test_a_request_begins_pending_and_once(store: Store) -> None:
    """Nobody brings in a request that is decided already, or one with a used id."""
    with pytest.raises(ApprovalError):
        store.add_approval(request(state=S.APPROVED), event())
    asked = added(store)
    with pytest.raises(StoreError):
        store.add_approval(asked, event())
    assert traces(store) == (1, 1)


def test_evidence_is_noted_by_the_executing_host_only(store: Store) -> None:
    """It adds up, survives the next move, and is refused to everybody else."""
    approved = added(store, S.APPROVED)
    with pytest.raises(AlreadyDecided):
        store.note(approved.id, "host-1", {"pid": 1})
    store.claim(approved.id, "host-1", event())
    store.note(approved.id, "host-1", {"pid": 1})
    store.note(approved.id, "host-1", {"started": "now"})
    with pytest.raises(AlreadyDecided):
        store.note(approved.id, "host-2", {"pid": 2})
    ended = store.move(approved.id, S.UNKNOWN, event())
    assert ended.evidence == {"pid": 1, "started": "now"}


# -- secrets that are shown once ------------------------------------------------------------------------------------


def keeping(store: Store, *path: ApprovalState) -> str:
    """A request whose call has made a secret, led along a path of states; its id."""
    approved = added(store, S.APPROVED)
    store.claim(approved.id, "host-1", event())
    store.note(approved.id, "host-1", {"pid": 1}, "v1.k.token")
    for state in path:
        store.move(approved.id, state, event(f"approval.{state}"))
    return approved.id


def revealed(store: Store, key: str) -> str:
    return store.reveal_secret(key, event("secret.revealed", actor=BOB, approval=key), lambda token: f"opened {token}")


def test_a_secret_is_shown_once_with_its_audit_event(store: Store) -> None:
    """What was kept with the evidence comes out once; then it is gone, and who had it is known."""
    key = keeping(store, S.SUCCEEDED)
    before = store.approval(key)
    assert before.evidence == {"pid": 1, "secret": "kept"}
    assert revealed(store, key) == "opened v1.k.token"
    assert store.one_time_secrets() == {}
    after = store.approval(key)
    assert (after.evidence["secret"], after.version) == ("revealed", before.version + 1)
    assert kinds(store)[-1] == ("approval", key, "secret revealed")
    written = traces(store)
    with pytest.raises(SecretRevealed, match="Bob") as refusal:
        revealed(store, key)
    assert refusal.value.by == "Bob"
    assert traces(store) == written
    assert verified(store) == written[0]


def test_a_secret_that_cannot_be_opened_stays(store: Store) -> None:
    """Nothing is deleted and nothing is recorded when the key is missing."""
    key, written = keeping(store, S.SUCCEEDED), traces(store)

    def refuse(_: str) -> str:
        raise StoreError("the key is missing")

    with pytest.raises(StoreError, match="the key is missing"):
        store.reveal_secret(key, event("secret.revealed"), refuse)
    assert (store.one_time_secrets(), traces(store)) == ({key: "v1.k.token"}, written)
    assert revealed(store, key) == "opened v1.k.token"


@pytest.mark.parametrize("path", [(), (S.UNKNOWN,)], ids=["executing", "unknown"])
def test_a_secret_waits_for_the_end(store: Store, path: tuple[ApprovalState, ...]) -> None:
    """While it is not known whether the call took effect, the secret is kept and not shown, however long that takes."""
    key = keeping(store, *path)
    with pytest.raises(SecretMissing):
        revealed(store, key)
    assert store.expire_secrets(now() + timedelta(days=1000)) == []
    store.move(key, S.SUCCEEDED, event())
    assert revealed(store, key) == "opened v1.k.token"


@pytest.mark.parametrize("path", [(S.FAILED,), (S.UNKNOWN, S.FAILED)], ids=["failed", "unknown, then failed"])
def test_the_secret_of_a_call_that_failed_is_deleted(store: Store, path: tuple[ApprovalState, ...]) -> None:
    """In the transaction that records the failure."""
    key = keeping(store, *path)
    assert store.one_time_secrets() == {}
    assert store.approval(key).evidence == {"pid": 1, "secret": "deleted"}
    with pytest.raises(SecretMissing, match="deleted"):
        revealed(store, key)


def test_a_secret_that_nobody_asks_for_expires(store: Store) -> None:
    """Seven days after the success, not before, with an audit event; whoever comes later is told so."""
    key, at = keeping(store, S.SUCCEEDED), now()
    assert store.expire_secrets(at + timedelta(days=6, hours=23)) == []
    assert store.expire_secrets(at + timedelta(days=7, minutes=1)) == [key]
    assert store.one_time_secrets() == {}
    (row,) = store.audit_page(before=None, limit=1, filters={"approval": key})
    assert '"type":"secret.expired"' in row.body
    with pytest.raises(SecretExpired):
        revealed(store, key)
    assert store.approval(key).evidence == {"pid": 1, "secret": "expired"}
    assert store.expire_secrets(at + timedelta(days=8)) == []


def test_only_the_executing_host_keeps_a_secret(store: Store) -> None:
    """Neither before the claim nor from another host; the last of a call counts; a request without one has none."""
    approved = added(store, S.APPROVED)
    with pytest.raises(AlreadyDecided):
        store.note(approved.id, "host-1", {}, "v1.k.early")
    key = keeping(store)
    with pytest.raises(AlreadyDecided):
        store.note(key, "host-2", {}, "v1.k.foreign")
    store.note(key, "host-1", {"tries": 2}, "v1.k.second")
    assert store.one_time_secrets() == {key: "v1.k.second"}
    with pytest.raises(SecretMissing):
        revealed(store, approved.id)


def test_a_change_of_keys_takes_the_secrets_along(store: Store) -> None:
    """Together with the credentials or not at all; what was shown meanwhile does not come back."""
    shop, key, shown = instance(), keeping(store, S.SUCCEEDED), keeping(store, S.SUCCEEDED)
    store.add_instance(shop, {"dsn": "old"}, event())
    revealed(store, shown)
    with pytest.raises(UnknownInstance):
        store.replace_credentials({"nobody": {}}, event(), {key: "v1.n.token"})
    assert store.one_time_secrets() == {key: "v1.k.token"}
    store.replace_credentials({shop.id: {"dsn": "new"}}, event("key.rotated"), {key: "v1.n.token", shown: "v1.n.gone"})
    assert store.one_time_secrets() == {key: "v1.n.token"}
    assert revealed(store, key) == "opened v1.n.token"


def test_of_many_who_ask_for_a_secret_one_gets_it(store: Store) -> None:
    """Eight threads at the same moment: one is shown it, seven are told who was."""
    key = keeping(store, S.SUCCEEDED)

    def ask(_: int) -> str:
        try:
            return revealed(store, key)
        except SecretRevealed:
            return ""

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(ask, range(8))) == [""] * 7 + ["opened v1.k.token"]
    verified(store)


# -- hosts ----------------------------------------------------------------------------------------------------------


def test_a_heartbeat_keeps_a_host_known(store: Store) -> None:
    """The last one counts, and a host that ended in order is forgotten."""
    first = host()
    store.heartbeat(first)
    later = first.model_copy(update={"seen_at": first.seen_at + timedelta(seconds=5)})
    store.heartbeat(later)
    assert store.hosts() == [later]
    store.forget_host(first.id)
    assert store.hosts() == []


def test_orphans_are_what_silent_hosts_left_executing(store: Store) -> None:
    """A host that is heard of keeps its work; one that fell silent, or is unknown, has lost it."""
    at = now()
    store.heartbeat(host("alive", seen_at=at))
    store.heartbeat(host("silent", seen_at=at - timedelta(minutes=5)))
    left = {}
    for name in ("alive", "silent", "gone"):
        left[name] = added(store, S.APPROVED).id
        store.claim(left[name], name, event())
    lost = store.orphans(at - timedelta(minutes=1))
    assert {each.id for each in lost} == {left["silent"], left["gone"]}


# -- several at once ------------------------------------------------------------------------------------------------


def test_threads_share_a_store(store: Store) -> None:
    """Eight threads write and read through one store without a gap or an error."""
    talk = session()
    store.add_session(talk, event())

    def work(number: int) -> int:
        for step in range(8):
            store.record(event(summary=f"{number} {step}"))
            store.append(message(talk.id))
            assert store.audit_rows(0, 1000)
        return number

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(work, range(8))) == list(range(8))
    assert verified(store) == 65
    assert gapless(store) == 129
    assert [each.seq for each in store.messages(talk.id)] == list(range(1, 65))


def test_the_first_start_of_many_processes_makes_one_store(opening: Opening, crew: ProcessPoolExecutor) -> None:
    """All open the same empty place at the same moment: one makes the tables, the others wait for it."""
    told = all_at_once(crew, open_and_tell, [(opening,)] * CREW)
    assert told == [(0, "genesis")] * CREW


def test_processes_write_without_gaps(opening: Opening, store: Store, crew: ProcessPoolExecutor) -> None:
    """Four processes write in every way; both sequences and the chain stay whole."""
    talk = session()
    store.add_session(talk, event())
    written = all_at_once(crew, write_everything, [(opening, talk.id, 20)] * 4)
    assert gapless(store) == sum(written) + 1
    assert verified(store) == 4 * 20 * 4 + 1
    assert [each.seq for each in store.messages(talk.id)] == list(range(1, 81))


def test_a_race_for_claims_has_one_winner_each(opening: Opening, store: Store, crew: ProcessPoolExecutor) -> None:
    """Six processes try to claim the same 200 approvals: each is got exactly once, by the host in its row."""
    ids = [added(store, S.APPROVED).id for _ in range(200)]
    got = all_at_once(crew, claim_all, [(opening, ids)] * CREW)
    assert sorted(each for claims in got for each in claims) == sorted(ids)
    assert {store.approval(each).state for each in ids} == {S.EXECUTING}
    assert verified(store) == 600


def test_two_people_deciding_at_once_have_one_winner(opening: Opening, store: Store, crew: ProcessPoolExecutor) -> None:
    """One approves and one rejects the same requests: each takes one arrow, and the state is the winner's."""
    ids = [added(store).id for _ in range(60)]
    approved, rejected = all_at_once(crew, decide_all, [(opening, ids, S.APPROVED), (opening, ids, S.REJECTED)])
    assert sorted([*approved, *rejected]) == sorted(ids)
    assert {store.approval(each).state for each in approved} <= {S.APPROVED}
    assert {store.approval(each).state for each in rejected} <= {S.REJECTED}
    assert verified(store) == 120


# -- watching -------------------------------------------------------------------------------------------------------


async def take(watching: AsyncIterator[FeedEntry], count: int) -> list[FeedEntry]:
    """The next so many entries; fails when they do not come."""
    async with asyncio.timeout(60):
        return [await anext(watching) for _ in range(count)]


def test_a_watcher_sees_what_was_and_what_comes(opening: Opening, store: Store) -> None:
    """It begins where it is told, also in the past, and goes on with what others write."""

    async def scene() -> None:
        store.record(event())
        store.record(event())
        other = opening()
        async with aclosing(cast("Any", store.watch(1))) as watching:
            assert [entry.seq for entry in await take(watching, 1)] == [2]
            await asyncio.to_thread(other.record, event())
            await asyncio.to_thread(store.record, event())
            assert [entry.seq for entry in await take(watching, 2)] == [3, 4]
        other.close()

    asyncio.run(scene())


def test_a_change_is_seen_within_100_milliseconds(opening: Opening, store: Store) -> None:
    """Half of the changes that another connection commits are seen much sooner."""

    async def scene() -> list[float]:
        other, delays = opening(), []
        async with aclosing(cast("Any", store.watch(0))) as watching:
            for step in range(15):
                await asyncio.sleep(0.02 + 0.003 * step)
                await asyncio.to_thread(other.record, event())
                committed = time.perf_counter()
                await take(watching, 1)
                delays.append(time.perf_counter() - committed)
        other.close()
        return delays

    assert statistics.median(asyncio.run(scene())) < 0.1


def test_a_watcher_misses_nothing_under_load(opening: Opening, store: Store, crew: ProcessPoolExecutor) -> None:
    """While four processes write, the watcher gets every entry once, in order."""

    async def scene() -> list[int]:
        talk = session()
        store.add_session(talk, event())
        writing = asyncio.to_thread(all_at_once, crew, write_everything, [(opening, talk.id, 10)] * 4)
        task = asyncio.create_task(writing)
        async with aclosing(cast("Any", store.watch(0))) as watching:
            seen = [entry.seq for entry in await take(watching, 161)]
        await task
        return seen

    assert asyncio.run(scene()) == list(range(1, 162))


def test_a_cancelled_watcher_leaves_nothing_behind(store: Store) -> None:
    """Its thread ends by itself, and the store goes on."""

    async def scene() -> None:
        async def watch() -> None:
            async with aclosing(cast("Any", store.watch(0))) as watching:
                async for _ in watching:
                    pass

        task = asyncio.create_task(watch())
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    before = threading.active_count()
    asyncio.run(scene())
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert threading.active_count() <= before
    assert store.record(event()) == 1


def test_closing_the_store_ends_its_watchers(opening: Opening) -> None:
    """A watcher of a closed store comes to its end instead of waiting for ever."""

    async def scene() -> list[FeedEntry]:
        watched = opening()
        watched.record(event(actor=ALICE))
        seen = []
        async for entry in watched.watch(0):
            seen.append(entry)
            await asyncio.to_thread(watched.close)
        return seen

    assert len(asyncio.run(scene())) == 1


def test_what_is_read_is_of_the_documented_types(store: Store) -> None:
    """Rows and entries are the values of the contract."""
    store.record(event())
    assert isinstance(store.audit_rows(0, 1)[0], AuditRow)
    assert isinstance(store.feed(0)[0], FeedEntry)
    assert store.feed(0)[0].at.tzinfo is UTC


# -- runbooks ---------------------------------------------------------------------------------------------------------


def test_a_signature_is_kept_witnessed_and_taken_back_once(store: Store) -> None:
    """By id or its beginning, the newest first; after its end it is still there, and is nobody's leave."""
    made = vetting()
    store.add_vetting(made, event("runbook.signed"))
    store.add_vetting(vetting(runbook="other", signed_at=now()), event("runbook.signed"))
    assert store.vetting(made.id[:8]) == store.witnessed_vetting(made.id) == made
    assert [found.runbook for found in store.vettings()] == ["other", made.runbook]
    assert list(store.vettings(made.runbook)) == [made]
    ended = store.revoke_vetting(made.id, event("runbook.revoked", actor=BOB, reason="it has grown"))
    assert (ended.revoked_by, ended.revoked_for) == (BOB, "it has grown")
    assert store.vetting(made.id) == ended
    with pytest.raises(VettingVoid, match="Bob took the signature back"):
        store.witnessed_vetting(made.id)
    with pytest.raises(VettingVoid, match="already"):
        store.revoke_vetting(made.id, event("runbook.revoked"))
    with pytest.raises(VettingUnknown):
        store.vetting("ffff")


def test_a_signature_without_its_audit_record_is_no_leave(store: Store) -> None:
    """Nor is one whose record is of another digest or another person."""
    made = vetting()
    with pytest.raises(VettingVoid, match="no signature"):
        store.witnessed_vetting(made.id)
    store.add_vetting(made, event("runbook.signed", actor=BOB))
    with pytest.raises(VettingVoid, match="not the one"):
        store.witnessed_vetting(made.id)


def test_steps_stand_as_their_requests_do(store: Store) -> None:
    """A reading step by its own end, a step that asked by its request; by run, by runbook, and the newest of all."""
    place: dict[str, Any] = {"runbook": "r1", "run": "one", "step": "look", "key": "k"}
    store.record(event(call="c1", status="running", tool="p.look", details=place))
    store.record(
        event("call.outcome", call="c1", status="succeeded", summary="3 rows", milliseconds=5.0, details=place)
    )
    asked = request(call="c2")
    store.record(event("call.requested", call="c2", status="planning", details={**place, "step": "do"}))
    store.add_approval(asked, event("approval.pending", call="c2", approval=asked.id, details={**place, "step": "do"}))
    store.record(event(call="c3", status="running", details={**place, "run": "two"}))
    store.record(event(call="c4", status="running"))
    store.move(asked.id, ApprovalState.APPROVED, event("approval.approved", actor=BOB))
    look, do = store.runbook_steps("r1", "one")
    assert (look.step, look.state, look.summary, look.approval) == ("look", "succeeded", "3 rows", "")
    assert look.began_at is not None
    assert look.ended_at is not None
    assert (do.step, do.state, do.decided_by, do.approval) == ("do", "approved", "Bob", asked.id)
    assert do.arguments == asked.arguments
    assert [step.call for step in store.runbook_steps("r1")] == ["c1", "c2", "c3"]
    assert [step.call for step in store.runbook_steps(limit=2)] == ["c2", "c3"]
    assert store.runbook_steps("r2") == []


__all__ += [name for name in list(globals()) if name.startswith("test_")]
