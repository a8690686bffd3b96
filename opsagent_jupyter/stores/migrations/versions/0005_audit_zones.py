"""What few values fill is found by zones of the audit instead of an index that costs every record a page."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

words = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
number = sa.BigInteger().with_variant(sa.Integer, "sqlite")

ZONE = 128
ZONED = ("server", "instance", "actor", "actor_name")

_SQLITE = """
CREATE TRIGGER plugin_audit_log_zones AFTER INSERT ON plugin_audit_log BEGIN
    INSERT OR IGNORE INTO audit_zones VALUES ({values});
END
"""
_FUNCTION = """
CREATE FUNCTION plugin_audit_log_zones() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO audit_zones VALUES ({values}) ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$
"""
_TRIGGER = """
CREATE TRIGGER plugin_audit_log_zones AFTER INSERT ON plugin_audit_log
FOR EACH ROW EXECUTE FUNCTION plugin_audit_log_zones()
"""


def upgrade() -> None:
    op.create_table(
        "audit_zones",
        sa.Column("zone", number, nullable=False, autoincrement=False),
        *(sa.Column(name, words, nullable=False) for name in ZONED),
        sa.PrimaryKeyConstraint("zone", *ZONED, name="audit_zones_pkey"),
        sqlite_with_rowid=False,
    )
    op.execute(f"INSERT INTO audit_zones SELECT DISTINCT seq / {ZONE}, {', '.join(ZONED)} FROM plugin_audit_log")  # noqa: S608
    for name in ZONED:
        op.create_index(f"audit_zones_{name}_zone_idx", "audit_zones", [name, "zone"])
        op.drop_index(f"plugin_audit_log_{name}_seq_idx", "plugin_audit_log")
    values = ", ".join((f"NEW.seq / {ZONE}", *(f"NEW.{name}" for name in ZONED)))
    if op.get_bind().dialect.name == "postgresql":
        op.execute(_FUNCTION.format(values=values))
        op.execute(_TRIGGER)
    else:
        op.execute(_SQLITE.format(values=values))
