"""Leases, and reports of requests."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

DIGEST = sa.String(71)


def upgrade() -> None:
    _create_leases()
    _create_reports()


def downgrade() -> None:
    for table in ("reported", "reports", "leases"):
        op.drop_table(f"stockpot_{table}")
    with op.batch_alter_table("stockpot_registrations") as registrations:
        registrations.drop_index("ix_stockpot_registrations_recipe")
        registrations.add_column(sa.Column("owner", sa.String, nullable=True))
        registrations.add_column(sa.Column("claimed_until", sa.Double, nullable=False, server_default="0"))


def _create_leases() -> None:
    op.create_table(
        "stockpot_leases",
        sa.Column("name", sa.String, nullable=False),
        sa.Column("owner", sa.String, nullable=False),
        sa.Column("since", sa.Double, nullable=False),
        sa.Column("until", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_stockpot_leases"),
    )
    # An older program that still registers does not find its claim any more, and stops.
    with op.batch_alter_table("stockpot_registrations") as registrations:
        registrations.drop_column("owner")
        registrations.drop_column("claimed_until")
        registrations.create_index("ix_stockpot_registrations_recipe", ["recipe"])


def _create_reports() -> None:
    op.create_table(
        "stockpot_reports",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("digest", DIGEST, nullable=False),
        sa.Column("question", DIGEST, nullable=False),
        sa.Column("dataset", DIGEST, nullable=True),
        sa.Column("document", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_stockpot_reports"),
        sa.UniqueConstraint("digest", name="uq_stockpot_reports_digest"),
    )
    op.create_index("ix_stockpot_reports_dataset", "stockpot_reports", ["dataset"])
    op.create_table(
        "stockpot_reported",
        sa.Column("report", DIGEST, nullable=False),
        sa.Column("recipe", DIGEST, nullable=False),
        sa.PrimaryKeyConstraint("report", "recipe", name="pk_stockpot_reported"),
        sa.ForeignKeyConstraint(["report"], ["stockpot_reports.digest"], name="fk_stockpot_reported_report"),
        sa.ForeignKeyConstraint(["recipe"], ["stockpot_recipes.digest"], name="fk_stockpot_reported_recipe"),
    )
    op.create_index("ix_stockpot_reported_recipe", "stockpot_reported", ["recipe"])
