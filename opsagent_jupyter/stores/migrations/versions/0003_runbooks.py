"""Signatures of runbooks, and which call is which step."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

words = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
moment = sa.Text().with_variant(sa.TIMESTAMP(timezone=True), "postgresql")
number = sa.BigInteger().with_variant(sa.Integer, "sqlite")

STEP_WORDS = (
    "call", "runbook", "run", "step", "tool", "server", "instance", "risk", "actor_name", "approval", "status", "summary",
)  # fmt: skip


def upgrade() -> None:
    op.create_table(
        "runbook_vettings",
        sa.Column("id", words, nullable=False),
        sa.Column("runbook", words, nullable=False),
        sa.Column("signed_at", moment, nullable=False),
        sa.Column("revoked_at", moment, nullable=True),
        sa.Column("body", words, nullable=False),
        sa.PrimaryKeyConstraint("id", name="runbook_vettings_pkey"),
    )
    op.create_index("runbook_vettings_runbook_signed_at_idx", "runbook_vettings", ["runbook", "signed_at"])
    op.create_index("runbook_vettings_signed_at_idx", "runbook_vettings", ["signed_at"])
    op.create_table(
        "runbook_steps",
        *(sa.Column(name, words, nullable=False) for name in STEP_WORDS),
        sa.Column("asked_at", moment, nullable=False),
        sa.Column("ended_at", moment, nullable=True),
        sa.Column("seq", number, nullable=False, autoincrement=False),
        sa.PrimaryKeyConstraint("call", name="runbook_steps_pkey"),
    )
    op.create_index("runbook_steps_runbook_run_seq_idx", "runbook_steps", ["runbook", "run", "seq"])
    op.create_index("runbook_steps_seq_idx", "runbook_steps", ["seq"])
