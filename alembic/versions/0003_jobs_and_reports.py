"""Reports, one per request."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

DIGEST = sa.String(71)


def upgrade() -> None:
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


def downgrade() -> None:
    for table in ("reported", "reports"):
        op.drop_table(f"stockpot_{table}")
