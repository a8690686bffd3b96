"""Transaction ids and multixacts that grow old faster than VACUUM freezes them."""

from __future__ import annotations

from opsagent_jupyter.models import Suggestion
from opsagent_jupyter.plugins.findings import Finding, Severity, Survey
from opsagent_jupyter.plugins.postgresql.connection import Row
from opsagent_jupyter.plugins.postgresql.diagnosis.observation import Observation, call
from opsagent_jupyter.plugins.postgresql.queries import query
from opsagent_jupyter.plugins.postgresql.reads.tables import WRAPAROUND_END
from opsagent_jupyter.plugins.wording import count, percent

#: Times the age at which autovacuum freezes by force: a healthy server comes near 1, beyond LATE it does not keep up.
NEAR, LATE = 0.95, 1.2
#: Age at which the end is near whatever the settings say.
DIRE = 1_000_000_000


async def survey(seen: Observation) -> Survey:
    """Look at the age of every database of the cluster."""
    settings = await seen.vacuum_settings()
    databases = await seen.db.rows(query("database_ages"))
    oldest = next(iter(await seen.db.rows(query("oldest_table"))), None)
    findings = []
    for row in databases:
        for what, age, limit in (
            ("transaction id", row["xid_age"], settings["freeze_max_age"]),
            ("multixact", row["multixact_age"], settings["multixact_max_age"]),
        ):
            if age >= min(NEAR * limit, DIRE):
                findings.append(_aged(row, what, age, limit, oldest))
    return Survey(tuple(findings))


def _severity(age: int, limit: int) -> Severity:
    if age >= DIRE:
        return Severity.CRITICAL
    return Severity.HIGH if age >= LATE * limit else Severity.INFO


def _aged(row: Row, what: str, age: int, limit: int, oldest: Row | None) -> Finding:
    left = max(WRAPAROUND_END - age, 0)
    return Finding(
        kind="wraparound",
        severity=_severity(age, limit),
        confidence="certain",
        subject=f"{row['database']} ({what})",
        title=f"The oldest {what} of database {row['database']} is {count(age)} old, {percent(age, WRAPAROUND_END)} of the way"
        " to the end of writes",
        evidence=(
            f"{count(left)} are left",
            f"autovacuum freezes by force from {count(limit)} on",
            *([f"oldest table here: {oldest['table']}"] if oldest and row["here"] else []),
        ),
        why="When they run out the server refuses every write until a VACUUM in single steps has caught up.",
        advice=_advice(row, oldest),
        fix=_fix(row, oldest),
        impact=float(age),
    )


def _advice(row: Row, oldest: Row | None) -> str:
    if not row["here"]:
        return f"Connect to database {row['database']} and VACUUM (FREEZE) its oldest tables."
    if oldest is None or oldest["system"]:
        return "Look for what holds VACUUM back; then VACUUM (FREEZE) the catalog as a superuser."
    return f"Look for what holds VACUUM back; then VACUUM (FREEZE) {oldest['table']}."


def _fix(row: Row, oldest: Row | None) -> Suggestion | None:
    if not row["here"] or oldest is None or oldest["system"]:
        return None
    return call("vacuum_table", "its transaction ids are the oldest here", table=oldest["table"], freeze=True)
