"""The first schema."""

from __future__ import annotations

import secrets
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

words = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
moment = sa.Text().with_variant(sa.TIMESTAMP(timezone=True), "postgresql")
number = sa.BigInteger().with_variant(sa.Integer, "sqlite")

AUDIT_FILTERS = ("status", "risk", "tool", "server", "instance", "actor", "actor_name", "session", "approval")


def column(name: str, kind: Any = words, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=nullable, autoincrement=False)


def columns(*names: str) -> list[sa.Column[Any]]:
    return [column(name) for name in names]


def key(table: str, *names: str) -> sa.PrimaryKeyConstraint:
    return sa.PrimaryKeyConstraint(*names, name=f"{table}_pkey")


def index(table: str, *names: str) -> None:
    op.create_index(f"{table}_{'_'.join(names)}_idx", table, list(names))


def upgrade() -> None:
    create_ledger()
    create_instances()
    create_sessions()
    create_approvals()
    create_hosts()


def create_ledger() -> None:
    head = op.create_table(
        "chain_head",
        column("id", sa.Integer),
        column("log_id"),
        column("audit_seq", number),
        column("audit_hash"),
        column("feed_seq", number),
        key("chain_head", "id"),
        sa.CheckConstraint("id = 1", name="chain_head_one_row_check"),
    )
    op.bulk_insert(
        head, [{"id": 1, "log_id": secrets.token_hex(16), "audit_seq": 0, "audit_hash": "genesis", "feed_seq": 0}]
    )
    op.create_table(
        "plugin_audit_log",
        column("seq", number),
        column("event_id"),
        column("at", moment),
        *columns("type", "status", "risk", "tool", "server", "instance", "actor", "actor_name", "session", "approval"),
        *columns("body", "prev_hash", "hash"),
        key("plugin_audit_log", "seq"),
        sa.UniqueConstraint("event_id", name="plugin_audit_log_event_id_key"),
    )
    index("plugin_audit_log", "at")
    for name in AUDIT_FILTERS:
        index("plugin_audit_log", name, "seq")
    op.create_table(
        "change_feed",
        column("seq", number),
        column("at", moment),
        *columns("topic", "key", "kind"),
        key("change_feed", "seq"),
    )


def create_instances() -> None:
    op.create_table(
        "plugins", *columns("name", "version", "definition"), column("updated_at", moment), key("plugins", "name")
    )
    op.create_table("servers", column("name"), column("created_at", moment), key("servers", "name"))
    op.create_table(
        "agent_plugins",
        *columns("id", "name", "server", "plugin", "body", "credentials"),
        key("agent_plugins", "id"),
        sa.UniqueConstraint("name", name="agent_plugins_name_key"),
        sa.ForeignKeyConstraint(["server"], ["servers.name"], name="agent_plugins_server_fkey"),
        sa.ForeignKeyConstraint(["plugin"], ["plugins.name"], name="agent_plugins_plugin_fkey"),
    )
    index("agent_plugins", "server")
    index("agent_plugins", "plugin")


def create_sessions() -> None:
    op.create_table(
        "chat_sessions",
        *columns("id", "title", "instance", "server", "model", "created_by"),
        column("created_at", moment),
        column("updated_at", moment),
        column("closed", sa.Boolean),
        column("last_seq", number),
        column("lease_holder"),
        column("lease_until", moment, nullable=True),
        key("chat_sessions", "id"),
    )
    index("chat_sessions", "updated_at")
    op.create_table(
        "chat_messages",
        column("session"),
        column("seq", number),
        column("body"),
        key("chat_messages", "session", "seq"),
        sa.ForeignKeyConstraint(["session"], ["chat_sessions.id"], name="chat_messages_session_fkey"),
    )


def create_approvals() -> None:
    op.create_table(
        "approval_requests",
        *columns("id", "state"),
        column("version", number),
        *columns("session", "host"),
        column("created_at", moment),
        column("expires_at", moment),
        column("use_by", moment, nullable=True),
        column("body"),
        key("approval_requests", "id"),
    )
    index("approval_requests", "created_at")
    index("approval_requests", "state", "created_at")
    index("approval_requests", "session", "created_at")


def create_hosts() -> None:
    op.create_table(
        "hosts",
        *columns("id", "kind"),
        column("pid", sa.Integer),
        column("machine"),
        column("started_at", moment),
        column("seen_at", moment),
        key("hosts", "id"),
    )
