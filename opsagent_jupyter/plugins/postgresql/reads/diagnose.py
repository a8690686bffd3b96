"""diagnose: what is wrong with this database, the worst first, each with its figures and a ready fix."""

from __future__ import annotations

from opsagent_jupyter.models import Result
from opsagent_jupyter.plugins.findings import surveyed, told
from opsagent_jupyter.plugins.postgresql.connection import Database
from opsagent_jupyter.plugins.postgresql.diagnosis import KINDS, areas
from opsagent_jupyter.plugins.postgresql.toolbox import tools


@tools.read(
    phrases=(
        "what is wrong with this database",
        "diagnose this database",
        "run a health check",
        "is my database healthy",
        "give me a checkup",
        "find all problems",
        "what should I fix first",
    ),
    keywords=(
        "diagnose",
        "diagnosis",
        "diagnostics",
        "wrong",
        "health",
        "healthy",
        "problem",
        "problems",
        "sick",
        "checkup",
    ),
    patterns=(r"\bdiagnos(e|is|tics?)\b", r"\bhealth[ -]?check\b", r"\b(what|anything|something)('?s| is)? wrong\b"),
)
async def diagnose(db: Database) -> Result:
    """Find what is wrong with the database: indexes, statements, locks, bloat, wraparound, replication, settings and more."""
    looks = areas(db)
    survey = await surveyed(looks)
    return told(survey, KINDS, place=f"database {db.server.database}", areas=len(looks), rows=db.limits.rows)
