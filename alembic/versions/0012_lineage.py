"""Versions are known for good; a place of a checkpoint may tell its sweep itself; what was recalled."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

DIGEST = sa.String(71)
COLUMNS = ("recipe", "model", "version", "checkpoint", "run_id", "model_id")
REGISTRATIONS = sa.table(
    "stockpot_registrations", sa.column("state"), *map(sa.column, COLUMNS), sa.column("updated_at")
)


def upgrade() -> None:
    versions = op.create_table(
        "stockpot_versions",
        sa.Column("recipe", DIGEST, nullable=False),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("version", sa.String, nullable=False),
        sa.Column("checkpoint", DIGEST, nullable=False),
        sa.Column("run_id", sa.String, nullable=True),
        sa.Column("model_id", sa.String, nullable=True),
        sa.Column("seen_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("recipe", "model", "version", name="pk_stockpot_versions"),
        sa.ForeignKeyConstraint(["recipe"], ["stockpot_recipes.digest"], name="fk_stockpot_versions_recipe"),
    )
    op.create_index("ix_stockpot_versions_checkpoint", "stockpot_versions", ["checkpoint"])
    op.create_index("ix_stockpot_versions_run_id", "stockpot_versions", ["run_id"])
    known = REGISTRATIONS.c
    told = (known.state == "REGISTERED") & known.version.is_not(None) & known.checkpoint.is_not(None)
    registered = sa.select(*(known[name] for name in COLUMNS), known.updated_at).where(told)
    op.execute(sa.insert(versions).from_select([*COLUMNS, "seen_at"], registered))
    with op.batch_alter_table("stockpot_candidates") as candidates:
        candidates.add_column(sa.Column("sweep", sa.String, nullable=True))
    op.create_table(
        "stockpot_recalls",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("by", sa.String, nullable=False),
        sa.Column("withdrawn", sa.Boolean, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_stockpot_recalls"),
    )


def downgrade() -> None:
    op.drop_table("stockpot_recalls")
    with op.batch_alter_table("stockpot_candidates") as candidates:
        candidates.drop_column("sweep")
    op.drop_table("stockpot_versions")
