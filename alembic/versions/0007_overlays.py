"""What the rules of recipes' overlays have led to."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

DIGEST = sa.String(71)


def upgrade() -> None:
    op.create_table(
        "stockpot_overlays",
        sa.Column("recipe", DIGEST, nullable=False),
        sa.Column("overlay", DIGEST, nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["recipe"], ["stockpot_recipes.digest"], name="fk_stockpot_overlays_recipe"),
        sa.PrimaryKeyConstraint("recipe", name="pk_stockpot_overlays"),
    )


def downgrade() -> None:
    op.drop_table("stockpot_overlays")
