"""What triggers asked for, what failed, and how far a scan has looked."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    with op.batch_alter_table("stockpot_jobs") as jobs:
        jobs.add_column(sa.Column("asked_at", sa.Double, nullable=True))
        jobs.add_column(sa.Column("failed_at", sa.Double, nullable=True))
        jobs.add_column(sa.Column("fault", sa.String, nullable=True))
        jobs.add_column(sa.Column("attempts", sa.Integer, nullable=False, server_default="0"))
        jobs.add_column(sa.Column("predecessor", sa.String(71), nullable=True))
    op.create_table(
        "stockpot_watermarks",
        sa.Column("name", sa.String, nullable=False),
        sa.Column("begun", sa.Double, nullable=False),
        sa.Column("until", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_stockpot_watermarks"),
    )
    op.create_table(
        "stockpot_sweeps",
        sa.Column("sweep", sa.String, nullable=False),
        sa.Column("rule", sa.String, nullable=False),
        sa.Column("moved", sa.Double, nullable=False),
        sa.Column("look_at", sa.Double, nullable=True),
        sa.Column("tag", sa.String, nullable=True),
        sa.PrimaryKeyConstraint("sweep", name="pk_stockpot_sweeps"),
    )
    op.create_index("ix_stockpot_sweeps_look_at", "stockpot_sweeps", ["look_at"])


def downgrade() -> None:
    op.drop_table("stockpot_sweeps")
    op.drop_table("stockpot_watermarks")
    with op.batch_alter_table("stockpot_jobs") as jobs:
        for column in ("predecessor", "attempts", "fault", "failed_at", "asked_at"):
            jobs.drop_column(column)
