"""Gaps of the examples beside their scores."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    with op.batch_alter_table("stockpot_evaluations") as evaluations:
        evaluations.add_column(sa.Column("gaps", sa.LargeBinary, nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("stockpot_evaluations") as evaluations:
        evaluations.drop_column("gaps")
