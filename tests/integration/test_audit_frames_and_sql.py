"""DataFrames and SQL over the audit: types, filters, views, limits, exports."""

from __future__ import annotations

import json
import threading
from datetime import UTC, date, datetime, timedelta

import duckdb
import numpy as np
import pandas as pd
import pytest

from opsagent_jupyter.audit import chain, frames, projection, rollups
from opsagent_jupyter.audit.projection import DuckProjection
from opsagent_jupyter.audit.query import moment
from opsagent_jupyter.errors import AuditQueryError
from opsagent_jupyter.models import AuditRow, sha256
from opsagent_jupyter.stores.store import open_store
from tests.audit_log import ALICE, BOB, START, STATUSES, event, fill, reader_of


@pytest.fixture
def store(store_url):
    found = open_store(store_url)
    yield found
    found.close()


@pytest.fixture
def reader(store, tmp_path):
    return reader_of(store, tmp_path)


def test_threads_that_read_at_once_all_get_everything(store, tmp_path):
    """Readers and carriers in one process do not disturb each other."""
    reader = reader_of(store, tmp_path)
    fill(store, 50)
    lengths = []
    threads = [threading.Thread(target=lambda: lengths.append(len(reader.frame()))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lengths == [50] * 6


def test_the_file_is_for_older_tools_too(store, tmp_path):
    """It has the storage format of DuckDB 1.5, so that other tools on the machine can open it."""
    fill(store, 3)
    path = tmp_path / "audit.duckdb"
    DuckProjection(store, path).carry()
    with duckdb.connect(path, read_only=True) as database:
        (tags,) = database.execute("SELECT tags FROM duckdb_databases() WHERE database_name = 'audit'").fetchall()[0]
    assert "v1.5" in str(tags)


def test_the_file_is_private(store, tmp_path):
    """Only its owner can read the file, as with the store."""
    fill(store, 1)
    path = tmp_path / "audit.duckdb"
    DuckProjection(store, path).carry()
    assert path.stat().st_mode & 0o077 == 0


def test_an_unknown_risk_level_counts_as_the_highest(tmp_path):
    """A level that a newer release wrote is shown as critical, not as none."""
    body = json.dumps({"at": "2026-11-01T00:00:00Z", "event_id": "e", "risk": "apocalyptic", "seq": 1, "type": "x"})
    body = body.replace(": ", ":").replace(", ", ",")
    row = AuditRow(seq=1, event_id="e", body=body, prev_hash=chain.GENESIS, hash=chain.link(chain.GENESIS, body))
    database = projection.memory()
    database.register("links", projection.links([row]))
    assert database.execute(f"SELECT risk FROM ({projection.derive()})").fetchall() == [("critical",)]
    database.close()


def test_frames_have_proper_types(store, reader):
    """Times with zone, ordered risk levels, categories, unpacked JSON, numbers; and the risk levels compare."""
    fill(store, 30)
    frame = reader.frame()
    assert frame.seq.dtype == np.int64
    assert str(frame.time.dtype) == "datetime64[us, UTC]"
    assert frame.risk.cat.ordered
    assert list(frame.risk.cat.categories) == ["low", "medium", "high", "critical"]
    assert {str(frame[name].dtype) for name in ("status", "environment", "via")} == {"category"}
    assert frame.milliseconds.dtype == np.float64
    assert frame.agent.dtype == np.bool_
    assert isinstance(frame.arguments[0], dict)
    assert isinstance(frame.statements[0], list)
    assert set(frame[frame.risk >= "high"].risk) == {"high", "critical"}
    assert list(frame.seq) == sorted(frame.seq)
    assert {"body", "prev_hash"}.isdisjoint(frame.columns)


def test_an_empty_frame_looks_like_a_full_one(store, reader):
    """Columns and types do not depend on what is found."""
    empty = reader.frame()
    fill(store, 30)
    full = reader.frame()
    none = reader.frame(actor="nobody")
    assert len(empty) == len(none) == 0
    assert list(empty.columns) == list(full.columns) == list(none.columns)
    assert empty.dtypes.equals(full.dtypes)
    assert none.dtypes.equals(full.dtypes)


def test_an_approval_is_found_by_the_beginning_of_its_id(store, reader):
    """As everywhere, a few characters name a request."""
    store.record(event(1, approval="abcd" + "0" * 28), event(2, approval="abce" + "0" * 28), event(3))
    assert list(reader.frame(approval="abcd").seq) == [1]
    assert list(reader.frame(approval="abc").seq) == [1, 2]


@pytest.mark.parametrize(
    ("filters", "says"),
    [
        ({"since": "yesterdayish"}, "1d"),
        ({"since": "5x"}, "12h"),
        ({"until": "2026-13-01"}, "2026-11-01"),
        ({"since": "99999999999999999999d"}, "no time"),
        ({"since": pd.NaT}, "no time"),
        ({"risk": "hihg"}, "low, medium, high, critical"),
        ({"status": "faild"}, "Did you mean failed?"),
        ({"limit": -1}, "whole number"),
        ({"colour": "red"}, "no filter 'colour'"),
    ],
)
def test_a_bad_filter_says_what_is_possible(store, reader, filters, says):
    """An empty answer to a mistyped filter would read like good news."""
    fill(store, 5)
    with pytest.raises(AuditQueryError) as caught:
        reader.frame(**filters)
    assert says in str(caught.value)


NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("90m", NOW - timedelta(minutes=90)),
        ("1d", NOW - timedelta(days=1)),
        (" 2 h ", NOW - timedelta(hours=2)),
        ("1w", NOW - timedelta(weeks=1)),
        ("30s", NOW - timedelta(seconds=30)),
        ("2026-11-01", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-01T14:00", datetime(2026, 11, 1, 14, tzinfo=UTC)),
        ("2026-11-01 14:00+01:00", datetime(2026, 11, 1, 13, tzinfo=UTC)),
        ("2026-11-01T14:00:00Z", datetime(2026, 11, 1, 14, tzinfo=UTC)),
        (date(2026, 11, 1), datetime(2026, 11, 1, tzinfo=UTC)),
        (datetime(2026, 11, 1, 14), datetime(2026, 11, 1, 14, tzinfo=UTC)),  # noqa: DTZ001 - that is the case
        (timedelta(hours=3), NOW - timedelta(hours=3)),
        (pd.Timestamp("2026-11-01T14:00", tz="UTC"), datetime(2026, 11, 1, 14, tzinfo=UTC)),
    ],
)
def test_times_can_be_written_as_people_write_them(text, means):
    """So long ago, a date, a time, with or without a zone, and Python's own values."""
    assert moment(text, NOW) == means


def test_sql_answers_have_proper_types(store, reader):
    """Sums are numbers, times have a zone, differences are time spans, JSON is unpacked, risk levels are ordered."""
    fill(store, 10)
    found = reader.sql(
        "SELECT sum(seq) AS total, max(time) AS latest, max(time) - min(time) AS span, any_value(arguments) AS arguments, "
        "max(risk) AS risk, CAST(max(time) AS DATE) AS day, list(seq) AS seqs, 1.5 AS number, NULL AS nothing, "
        "{'a': max(time)} AS nested, 170141183460469231731687303715884105727 AS huge FROM audit"
    )
    row = found.iloc[0]
    assert row.total == 55
    assert found.total.dtype == np.int64
    assert str(found.latest.dtype) == "datetime64[us, UTC]"
    assert row.span == timedelta(minutes=9)
    assert isinstance(row.arguments, dict)
    assert found.risk.cat.ordered
    assert found.day.dtype.kind == "M"
    assert row.seqs == list(range(1, 11))
    assert found.number.dtype == np.float64
    assert row.nested["a"] == row.latest
    assert row.huge == pytest.approx(1.7e38, rel=0.01)


def test_sql_without_rows_keeps_its_columns(reader):
    """An empty answer has columns and types."""
    found = reader.sql("SELECT seq, time, risk, arguments FROM audit")
    assert len(found) == 0
    assert list(found.columns) == ["seq", "time", "risk", "arguments"]
    assert found.risk.cat.ordered


def test_columns_of_the_same_name_are_both_there(store, reader):
    """SELECT seq, seq is odd, and no reason to fail."""
    fill(store, 2)
    assert reader.sql("SELECT seq AS a, seq AS a FROM audit ORDER BY seq").to_numpy().tolist() == [[1, 1], [2, 2]]


def test_a_long_answer_is_cut_and_says_so(store, reader):
    """The first rows of the order that was asked for, and a notice."""
    fill(store, 20)
    found = reader.sql("SELECT seq FROM audit ORDER BY seq DESC", rows=5)
    assert list(found.seq) == [20, 19, 18, 17, 16]
    assert "first 5 rows" in " ".join(found.attrs["notices"])
    assert reader.sql("SELECT seq FROM audit ORDER BY seq", rows=20).attrs["notices"] == ()


def test_a_wrong_query_says_why(store, reader):
    """DuckDB's message, and where the names are listed."""
    with pytest.raises(AuditQueryError, match=r"(?s)colour.*DESCRIBE audit"):
        reader.sql("SELECT colour FROM audit")
    with pytest.raises(AuditQueryError, match="syntax error"):
        reader.sql("SELEC 1")


def test_an_endless_query_is_stopped(reader):
    """After its time the query ends with an error that says so, and the next one works."""
    with pytest.raises(AuditQueryError, match=r"stopped after 0\.3 s"):
        reader.sql("SELECT count(*) FROM range(100000000000) a, range(100000) b", seconds=0.3)
    assert reader.sql("SELECT 1 AS one").one[0] == 1


def a_request(number, approval, ends):
    """The events of one approval request, a minute apart."""
    call = sha256(f"request {approval}")[:32]
    for minute, (status, actor, changes) in enumerate(ends):
        yield event(
            number,
            type=f"approval.{status}",
            status=status,
            actor=actor,
            approval=approval,
            call=call,
            at=START + timedelta(hours=number, minutes=minute),
            tool="postgresql.create_index",
            server="server-1",
            **{"risk": "high", "milliseconds": None, "summary": "", "error_code": ""} | changes,
        )


@pytest.fixture
def decided(store):
    """Four requests: run, rejected, unknown and then found to have run, and one that waits. One more was refused."""
    why = {"reason": "blocks the checkout"}
    store.record(
        *a_request(1, "aaaa", [("pending", ALICE, {}), ("approved", BOB, why), ("executing", ALICE, {}),
                               ("succeeded", ALICE, {"summary": "index is valid", "milliseconds": 1200.0})]),
        *a_request(2, "bbbb", [("pending", ALICE, {}), ("denied", ALICE, {}), ("rejected", BOB, why)]),
        *a_request(3, "cccc", [("pending", ALICE, {}), ("approved", BOB, why), ("unknown", ALICE, {}),
                               ("succeeded", BOB, {"summary": "it had run"})]),
        *a_request(4, "dddd", [("pending", ALICE, {}), ("approved", BOB, why), ("unknown", ALICE, {})]),
        *a_request(5, "eeee", [("pending", ALICE, {})]),
        event(6, type="call.refused", status="refused", error_code="call.policy_denied", risk=None, call=""),
        event(7, type="call.outcome", status="failed", tool="postgresql.get_locks", error_code="execution.deadline"),
        event(8, type="call.outcome", status="succeeded", tool="postgresql.get_locks"),
    )  # fmt: skip


def test_the_views_answer_the_usual_questions(reader, decided):
    """Who approved what and when, how long it took, what failed, what changed, what is unknown, what was refused."""
    approvals = reader.sql("FROM approvals ORDER BY requested_at").set_index("approval")
    assert approvals.state.to_dict() == {
        "aaaa": "succeeded", "bbbb": "rejected", "cccc": "succeeded", "dddd": "unknown", "eeee": "pending",
    }  # fmt: skip
    run = approvals.loc["aaaa"]
    assert (run.requested_by, run.decided_by, run.decision, run.reason) == (
        ALICE.name, BOB.name, "approved", "blocks the checkout",
    )  # fmt: skip
    assert run.seconds_to_decision == 60
    assert run.outcome == "index is valid"
    decisions = reader.sql("FROM decisions ORDER BY seq")
    assert list(decisions.decision) == ["approved", "denied", "rejected", "approved", "approved"]
    waits = reader.sql("FROM time_to_decision").iloc[0]
    assert (waits.risk, waits.requests, waits.decided, waits.max_seconds) == ("high", 5, 4, 120)
    failures = reader.sql("FROM failures ORDER BY tool").set_index("tool")
    assert failures.loc["postgresql.get_locks", ["runs", "failed", "last_error_code"]].tolist() == [
        2, 1, "execution.deadline",
    ]  # fmt: skip
    assert failures.loc["postgresql.create_index", ["runs", "failed", "unknown"]].tolist() == [3, 0, 1]
    changes = reader.sql("FROM changes").iloc[0]
    assert (changes.server, changes.changes, changes.high_or_critical) == ("server-1", 2, 2)
    assert list(reader.sql("FROM unknowns").approval) == ["dddd"]
    assert list(reader.sql("FROM refusals ORDER BY seq").error_code) == ["", "call.policy_denied"]


def test_the_views_are_in_the_file_too(store, decided, tmp_path):
    """Other tools that open audit.duckdb find the same views."""
    path = tmp_path / "audit.duckdb"
    DuckProjection(store, path).carry()
    with duckdb.connect(path, read_only=True) as database:
        assert database.execute("SELECT count(*) FROM approvals").fetchall() == [(5,)]
        assert database.execute("SELECT count(*) FROM failures").fetchall() == [(2,)]
        assert database.execute("SELECT high_or_critical FROM changes").fetchall() == [(2,)]


def test_a_changed_layout_has_a_new_number():
    """Files of older layouts are rebuilt: whoever changes these files raises LAYOUT and this line."""
    text = "".join(projection.sql(name) for name in ("risk", "schema", "derive", "views", *rollups.KEPT))
    assert (projection.LAYOUT, sha256(text)[:12]) == (3, "326357040879")


def test_the_categories_know_the_frames_risk_type():
    """The type by which frames recognise risk levels is the one that DuckDB reports."""
    database = projection.memory()
    assert str(database.sql("SELECT CAST('low' AS risk_level)").types[0]) == frames.RISK_TYPE
    assert set(STATUSES) <= set(frames.CATEGORIES["status"])
    database.close()


@pytest.mark.parametrize(
    ("condition", "levels"),
    [
        ("risk >= 'high'", {"high", "critical"}),
        ("risk>'medium'", {"high", "critical"}),
        ("a.risk < 'high'", {"low", "medium"}),
        ("\"risk\" <= 'medium'", {"low", "medium"}),
        ("'high' <= a.risk", {"high", "critical"}),
        ("'medium' > \"risk\"", {"low"}),
        ("RISK BETWEEN 'medium' AND 'high'", {"medium", "high"}),
        ("risk NOT BETWEEN 'medium' AND 'high'", {"low", "critical"}),
        ("risk >= 'high'::risk_level", {"high", "critical"}),
        ("risk = 'critical'", {"critical"}),
        ("risk <> 'low'", {"medium", "high", "critical"}),
        ("risk IN ('low', 'critical')", {"low", "critical"}),
    ],
)
def test_sql_compares_risk_levels_by_rank(store, reader, condition, levels):
    """However the comparison is written, "high and up" includes what is critical."""
    fill(store, 10)
    assert set(reader.sql(f"SELECT risk FROM audit AS a WHERE {condition}").risk) == levels


def test_an_export_can_be_verified_elsewhere(store, reader, tmp_path):
    """Parquet, CSV and JSON lines hold every row with body and hashes, whole, under their name."""
    fill(store, 25)
    for name in ("audit.parquet", "audit.csv", "audit.jsonl"):
        assert reader.export(tmp_path / name) == 25
        with duckdb.connect() as database:
            rows = database.execute(f"SELECT seq, event_id, body, prev_hash, hash FROM '{tmp_path / name}'").fetchall()
        exported = [AuditRow._make(row) for row in rows]
        assert chain.verify(exported) == store.audit_head()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".audit")]
    with pytest.raises(AuditQueryError, match=r"\.parquet"):
        reader.export(tmp_path / "audit.xlsx")


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_an_export_holds_what_the_filters_leave(store, reader, tmp_path, ending):
    """The same filters as those of a frame, with quotes in a value and quotes in the file's name."""
    fill(store, 30)
    target = tmp_path / f"it's.{ending}"
    chosen = reader.frame(risk="high", tool="create_index", until="2026-11-01T00:20")
    assert reader.export(target, risk="high", tool="create_index", until="2026-11-01T00:20") == len(chosen) > 0
    with duckdb.connect() as database:
        name = str(target).replace("'", "''")
        found = database.execute(f"SELECT seq FROM '{name}'").fetchall()
    assert [seq for (seq,) in found] == list(chosen.seq)
    assert reader.export(target, actor="' OR 1=1 --") == 0
    with pytest.raises(AuditQueryError, match="no filter"):
        reader.export(target, colour="red")
