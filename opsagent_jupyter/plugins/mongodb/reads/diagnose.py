"""diagnose: what is wrong with this database, the worst first, each with its figures and a ready fix."""

from __future__ import annotations

from opsagent_jupyter.models import Result
from opsagent_jupyter.plugins.findings import KEYWORDS, PATTERNS, PHRASES, surveyed, told
from opsagent_jupyter.plugins.mongodb.connection import Database
from opsagent_jupyter.plugins.mongodb.diagnosis import KINDS, areas, scope
from opsagent_jupyter.plugins.mongodb.toolbox import tools


@tools.read(phrases=PHRASES, keywords=KEYWORDS, patterns=PATTERNS)
async def diagnose(db: Database) -> Result:
    """Find what is wrong: operations, replication, cache, collection scans, indexes, oversize documents, missing TTL."""
    looks = areas(db)
    survey = await surveyed(looks)
    return told(survey, KINDS, place=scope.place(db), areas=len(looks), rows=db.limits.rows)
