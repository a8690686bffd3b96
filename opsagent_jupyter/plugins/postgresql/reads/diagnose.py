"""diagnose: what is wrong with this database, the worst first, each with its figures and a ready fix."""

from __future__ import annotations

from opsagent_jupyter.models import Result
from opsagent_jupyter.plugins.findings import KEYWORDS, PATTERNS, PHRASES, surveyed, told
from opsagent_jupyter.plugins.postgresql.connection import Database
from opsagent_jupyter.plugins.postgresql.diagnosis import KINDS, areas
from opsagent_jupyter.plugins.postgresql.toolbox import tools


@tools.read(phrases=PHRASES, keywords=KEYWORDS, patterns=PATTERNS)
async def diagnose(db: Database) -> Result:
    """Find what is wrong with the database: indexes, statements, locks, bloat, wraparound, replication, settings and more."""
    looks = areas(db)
    survey = await surveyed(looks)
    return told(survey, KINDS, place=f"database {db.server.database}", areas=len(looks), rows=db.limits.rows)
