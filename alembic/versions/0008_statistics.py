"""Statistics that are laid over soups, as files, beside their digests."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.execute("DELETE FROM stockpot_overlays")  # nothing could apply a digest alone
    with op.batch_alter_table("stockpot_overlays") as table:
        table.add_column(sa.Column("content", sa.LargeBinary(), nullable=False))
    # BatchNorm's counters are no part any more of what a checkpoint's integers are named by: it is read anew.
    op.execute("DELETE FROM stockpot_ingested WHERE CAST(document AS TEXT) LIKE '%num_batches_tracked%'")


def downgrade() -> None:
    with op.batch_alter_table("stockpot_overlays") as table:
        table.drop_column("content")
