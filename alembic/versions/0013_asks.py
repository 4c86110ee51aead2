"""What was asked for in MLflow, was tried and has no answer yet: how often, when last, and why not."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.create_table(
        "stockpot_asks",
        sa.Column("name", sa.String(71), nullable=False),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("born", sa.BigInteger, nullable=False),
        sa.Column("uri", sa.String, nullable=False),
        sa.Column("why", sa.String, nullable=False),
        sa.Column("fault", sa.String, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("failed_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_stockpot_asks"),
    )


def downgrade() -> None:
    op.drop_table("stockpot_asks")
