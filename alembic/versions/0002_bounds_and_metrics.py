"""Bounds, and metrics of a split as a whole."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

DIGEST = sa.String(71)


def upgrade() -> None:
    op.create_table(
        "stockpot_bounds",
        sa.Column("recipe", DIGEST, nullable=False),
        sa.Column("protocol", DIGEST, nullable=False),
        sa.Column("mixed", sa.Boolean, nullable=False),
        sa.Column("upper", sa.Double, nullable=False),
        sa.Column("updated_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("recipe", "protocol", "mixed", name="pk_stockpot_bounds"),
        sa.ForeignKeyConstraint(["recipe"], ["stockpot_recipes.digest"], name="fk_stockpot_bounds_recipe"),
        sa.ForeignKeyConstraint(
            ["protocol"], ["stockpot_protocols.digest"], name="fk_stockpot_bounds_protocol"
        ),
    )
    with op.batch_alter_table("stockpot_protocols") as protocols:
        withdrawn = sa.Column("mixed_bounds_withdrawn", sa.Boolean, nullable=False, server_default=sa.false())
        protocols.add_column(withdrawn)
    with op.batch_alter_table("stockpot_evaluations") as evaluations:
        evaluations.add_column(sa.Column("metric", sa.LargeBinary, nullable=True))


def downgrade() -> None:
    # Revision 0001 would take the mean over examples for the score of these.
    op.execute("DELETE FROM stockpot_evaluations WHERE metric IS NOT NULL")
    with op.batch_alter_table("stockpot_evaluations") as evaluations:
        evaluations.drop_column("metric")
    with op.batch_alter_table("stockpot_protocols") as protocols:
        protocols.drop_column("mixed_bounds_withdrawn")
    op.drop_table("stockpot_bounds")
