"""What happened to registered models: a chain of entries for each, and what they add up to."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

DIGEST = sa.String(71)


def upgrade() -> None:
    op.create_table(
        "stockpot_trail",
        sa.Column("model", sa.String, nullable=False),
        sa.Column("born", sa.BigInteger, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("by", sa.String, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("fact", sa.JSON, nullable=False),
        sa.Column("previous", DIGEST, nullable=True),
        sa.Column("digest", DIGEST, nullable=False),
        sa.PrimaryKeyConstraint("model", "born", "number", name="pk_stockpot_trail"),
        sa.UniqueConstraint("digest", name="uq_stockpot_trail_digest"),
    )
    op.create_table(
        "stockpot_watches",
        sa.Column("model", sa.String, nullable=False),
        sa.Column("born", sa.BigInteger, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("digest", DIGEST, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("mlflow", sa.String, nullable=False),
        sa.Column("looked", sa.Double, nullable=True),
        sa.Column("aliases", sa.JSON, nullable=False),
        sa.Column("gone", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("model", "born", name="pk_stockpot_watches"),
    )


def downgrade() -> None:
    op.drop_table("stockpot_watches")
    op.drop_table("stockpot_trail")
