"""How a job's splits were opened."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    with op.batch_alter_table("stockpot_jobs") as jobs:
        jobs.add_column(sa.Column("opening", sa.JSON, nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("stockpot_jobs") as jobs:
        jobs.drop_column("opening")
