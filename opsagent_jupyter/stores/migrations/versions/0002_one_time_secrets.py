"""Secrets that are shown once."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

words = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
moment = sa.Text().with_variant(sa.TIMESTAMP(timezone=True), "postgresql")


def upgrade() -> None:
    op.create_table(
        "one_time_secrets",
        sa.Column("approval", words, nullable=False),
        sa.Column("token", words, nullable=False),
        sa.Column("kept_at", moment, nullable=False),
        sa.Column("expires_at", moment, nullable=True),
        sa.PrimaryKeyConstraint("approval", name="one_time_secrets_pkey"),
        sa.ForeignKeyConstraint(["approval"], ["approval_requests.id"], name="one_time_secrets_approval_fkey"),
    )
