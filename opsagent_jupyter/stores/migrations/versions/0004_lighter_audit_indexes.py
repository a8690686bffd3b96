"""Indexes of the audit leave out the values that most rows have."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

UNCOMMON = {
    "status": "status NOT IN ('running', 'succeeded')",
    "risk": "risk NOT IN ('', 'low')",
    "approval": "approval NOT IN ('')",
}


def upgrade() -> None:
    for name, condition in UNCOMMON.items():
        index = f"plugin_audit_log_{name}_seq_idx"
        op.drop_index(index, "plugin_audit_log")
        where = sa.text(condition)
        op.create_index(index, "plugin_audit_log", [name, "seq"], sqlite_where=where, postgresql_where=where)
