"""The audit over REST: levels and up, a search over everything, counts over time, files, and the check of the chain."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from opsagent_jupyter.models import AuditEvent, Risk
from opsagent_jupyter.stores.sqlite_library import sqlite3
from opsagent_jupyter.stores.store import open_store
from opsagent_jupyter.testing.store_samples import ALICE
from tests.server.jupyter import Jupyter, done, jupyter, refused, soon

MOMENT = datetime(2026, 11, 1, tzinfo=UTC)
LEVELS = [None, *Risk]
COUNT = 300
NEEDLE = "blocks CHECKOUT since noon"


def record_of(number: int) -> AuditEvent:
    """One of each level in turn, a minute apart; the oldest has the needle, one a text that a spreadsheet would run."""
    return AuditEvent(
        type="call.outcome",
        actor=ALICE,
        at=MOMENT + timedelta(minutes=number),
        status="failed" if number % 10 == 0 else "succeeded",
        risk=LEVELS[number % 5],
        tool="ledger.add_mark",
        instance="books",
        server="desk",
        summary={0: NEEDLE, 1: '=HYPERLINK("http://x")'}.get(number, f"entry {number}"),
        arguments={"text": f"mark {number}, straße"},
        statements=("INSERT INTO marks VALUES (1)", "COMMIT"),
    )


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jupyter]:
    """A server whose audit is longer than a page."""
    folder: Path = tmp_path_factory.mktemp("told")
    (folder / "store").mkdir()
    store = open_store(f"sqlite:///{folder / 'store' / 'opsagent.db'}")
    for number in range(COUNT):
        store.record(record_of(number))
    store.close()
    with jupyter(folder) as running:
        yield running


def events(server: Jupyter, **query: Any) -> list[dict[str, Any]]:
    """All records that match, page by page."""
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = done(server.program().get("api/audit", params={**query, "limit": 70, "cursor": cursor}))
        found += page["items"]
        if not (cursor := page["next"]):
            return found


@pytest.mark.parametrize("search", ["", "mark"])
@pytest.mark.parametrize("level", list(Risk))
def test_a_level_means_that_and_up(told: Jupyter, level: Risk, search: str):
    """From the store and from the analysis: every record of the level and those above, once, newest first."""
    wanted = [str(risk) for risk in list(Risk)[list(Risk).index(level) :]]
    found = events(told, risk=level, search=search, tool="ledger.add_mark")
    assert {entry["event"]["risk"] for entry in found} == set(wanted)
    assert len(found) == len(wanted) * COUNT // 5
    seqs = [entry["seq"] for entry in found]
    assert seqs == sorted(set(seqs), reverse=True)


@pytest.mark.parametrize("search", ["", "mark"])
def test_a_level_alone_can_be_asked_for(told: Jupyter, search: str):
    """``risk_exactly`` is that level and no other; together with ``risk`` both must hold."""
    found = events(told, risk_exactly="medium", search=search)
    assert [entry["event"]["risk"] for entry in found] == ["medium"] * (COUNT // 5)
    assert events(told, risk_exactly="medium", risk="high", search=search) == []


@pytest.mark.parametrize(
    ("words", "count"),
    [
        ("checkout SINCE", 1),
        ("  checkout  ", 1),
        ("STRASSE", 0),
        ("STRAßE", COUNT),
        ("insert into marks", COUNT),
        ("alice", COUNT),
        ("add_mark", COUNT),
        ("%", 0),
        ("' OR 1=1 --", 0),
    ],
)
def test_a_search_looks_at_every_text_of_every_record(told: Jupyter, words: str, count: int):
    """Also at those that no page has shown yet; words are words, neither a pattern nor SQL."""
    assert len(events(told, search=words, tool="ledger.add_mark")) == count


def test_a_search_goes_on_where_its_page_ended_and_keeps_to_its_filters(told: Jupyter):
    """The cursor and the other filters hold in a search as they do without."""
    plain = events(told, status="failed", since=MOMENT.isoformat(), actor="Alice", instance="books")
    searched = events(told, status="failed", since=MOMENT.isoformat(), actor="Alice", instance="books", search="mark")
    assert searched == plain
    assert len(plain) == COUNT // 10


def test_the_plot_counts_every_record_that_matches_once(told: Jupyter):
    """By span, status and risk; the spans follow each other and none is empty."""
    query = {"tool": "ledger.add_mark", "spans": 10}
    found = done(told.program().get("api/audit/timeline", params=query))
    assert found["total"] == COUNT == sum(span["total"] for span in found["spans"])
    assert len(found["spans"]) == 10
    assert datetime.fromisoformat(found["since"]) == MOMENT
    assert sum(span["by_status"].get("failed", 0) for span in found["spans"]) == COUNT // 10
    assert sum(span["by_risk"].get("", 0) for span in found["spans"]) == COUNT // 5
    second = found["spans"][1]
    inside = events(told, since=second["since"], until=second["until"], tool="ledger.add_mark")
    assert len(inside) == second["total"]


def test_the_plot_of_nothing_is_empty(told: Jupyter):
    """No record, no span."""
    found = done(told.program().get("api/audit/timeline?server=nowhere"))
    assert found == {"total": 0, "since": None, "milliseconds": 0, "spans": []}


def test_a_csv_holds_what_matches_and_calculates_nothing(told: Jupyter):
    """Every record once, the newest last; a text that begins a formula is led by an apostrophe."""
    answer = told.program().get("api/audit/export", params={"format": "csv", "tool": "ledger.add_mark"})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"].startswith('attachment; filename="audit-')
    assert (answer.headers["x-opsagent-rows"], answer.headers["x-opsagent-cut"]) == (str(COUNT), "false")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert len(rows) == COUNT
    seqs = [int(row["seq"]) for row in rows]
    assert seqs == sorted(set(seqs))
    assert rows[0]["summary"] == NEEDLE
    assert rows[1]["summary"] == '\'=HYPERLINK("http://x")'
    assert json.loads(rows[2]["arguments"]) == {"text": "mark 2, straße"}
    assert json.loads(rows[2]["statements"]) == ["INSERT INTO marks VALUES (1)", "COMMIT"]


def test_a_parquet_file_holds_what_matches_as_it_is(told: Jupyter):
    """The same filters; texts are not changed for a spreadsheet."""
    query = {"format": "parquet", "risk": "high", "search": "mark", "tool": "ledger.add_mark"}
    answer = told.program().get("api/audit/export", params=query)
    assert answer.headers["content-type"] == "application/vnd.apache.parquet"
    rows = parquet.read_table(io.BytesIO(answer.content)).to_pylist()
    assert {row["risk"] for row in rows} == {"high", "critical"}
    assert [row["seq"] for row in reversed(rows)] == [
        entry["seq"] for entry in events(told, risk="high", search="mark")
    ]


def test_an_export_leaves_no_file_behind(told: Jupyter, tmp_path: Path):
    """What was sent is deleted, and so is what failed."""
    with jupyter(tmp_path, TMPDIR=str(tmp_path)) as server:
        assert server.program().get("api/audit/export").is_success
        soon(lambda: not list(tmp_path.glob("opsagent-*")))


def test_an_unknown_format_or_filter_is_refused(told: Jupyter):
    """As in every list."""
    for query in ("format=xlsx", "colour=red", "risk=grave", "limit=5"):
        refused(told.program().get(f"api/audit/export?{query}"), 400, "request.invalid")
    refused(told.program().get("api/audit/timeline?spans=0"), 400, "request.invalid")


def test_the_check_of_the_chain_runs_beside_and_is_kept(told: Jupyter):
    """The first question begins it; later ones are answered from its result, which is the same until records follow."""
    look = lambda: done(told.program().get("api/audit/verification"))  # noqa: E731
    found = soon(lambda: (one := look()) and not one["running"] and (one["last"] or one["failure"]) and one)
    assert found["failure"] == ""
    assert found["last"]["ok"]
    assert found["last"]["first_bad"] is None
    assert found["last"]["rows"] >= COUNT
    assert found["current"]
    assert look()["last"] == found["last"]


def test_a_record_that_was_edited_is_named(tmp_path: Path):
    """The check says which row is wrong first, and a search refuses to answer from such a log."""
    (tmp_path / "store").mkdir()
    path = tmp_path / "store" / "opsagent.db"
    store = open_store(f"sqlite:///{path}")
    for number in range(9):
        store.record(record_of(number))
    store.close()
    with sqlite3.connect(path) as database:
        database.execute("UPDATE plugin_audit_log SET body = replace(body, 'entry 4', 'entry 5') WHERE seq = 5")
    with jupyter(tmp_path) as server:
        look = lambda: done(server.program().get("api/audit/verification"))["last"]  # noqa: E731
        found = soon(look)
        assert (found["ok"], found["first_bad"]) == (False, 5)
        assert found["problems"]
        for path_ in ("audit?search=entry", "audit/timeline", "audit/export"):
            refused(server.program().get(f"api/{path_}"), 503, "audit.tampered")
