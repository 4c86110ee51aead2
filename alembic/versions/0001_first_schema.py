"""The first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

DIGEST = sa.String(71)


def upgrade() -> None:
    op.create_table(
        "stockpot_ingested",
        sa.Column("uri", sa.String, nullable=False),
        sa.Column("document", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("uri", name="pk_stockpot_ingested"),
    )
    for table in ("recipes", "protocols"):
        op.create_table(
            f"stockpot_{table}",
            sa.Column("digest", DIGEST, nullable=False),
            sa.Column("document", sa.JSON, nullable=False),
            sa.PrimaryKeyConstraint("digest", name=f"pk_stockpot_{table}"),
        )
    _create_ingredients()
    _create_evaluations()
    _create_selections()
    _create_registrations()


def downgrade() -> None:
    for table in (
        "registrations",
        "selections",
        "evaluations",
        "ingredients",
        "protocols",
        "recipes",
        "ingested",
    ):
        op.drop_table(f"stockpot_{table}")


def _create_ingredients() -> None:
    op.create_table(
        "stockpot_ingredients",
        sa.Column("recipe", DIGEST, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("checkpoint", DIGEST, nullable=False),
        sa.Column("coefficient", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("recipe", "position", name="pk_stockpot_ingredients"),
        _belongs_to("recipes", "ingredients", "recipe"),
    )
    op.create_index("ix_stockpot_ingredients_checkpoint", "stockpot_ingredients", ["checkpoint"])


def _create_evaluations() -> None:
    op.create_table(
        "stockpot_evaluations",
        sa.Column("recipe", DIGEST, nullable=False),
        sa.Column("protocol", DIGEST, nullable=False),
        sa.Column("value", sa.Double, nullable=True),
        sa.Column("n", sa.Integer, nullable=False),
        sa.Column("examples", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("recipe", "protocol", name="pk_stockpot_evaluations"),
        _belongs_to("recipes", "evaluations", "recipe"),
        _belongs_to("protocols", "evaluations", "protocol"),
    )


def _create_selections() -> None:
    op.create_table(
        "stockpot_selections",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("digest", DIGEST, nullable=False),
        sa.Column("recipe", DIGEST, nullable=False),
        sa.Column("protocol", DIGEST, nullable=False),
        sa.Column("document", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_stockpot_selections"),
        sa.UniqueConstraint("digest", name="uq_stockpot_selections_digest"),
        _belongs_to("recipes", "selections", "recipe"),
        _belongs_to("protocols", "selections", "protocol"),
    )
    op.create_index("ix_stockpot_selections_recipe", "stockpot_selections", ["recipe"])


def _create_registrations() -> None:
    op.create_table(
        "stockpot_registrations",
        sa.Column("model", sa.String, nullable=False),
        sa.Column("recipe", DIGEST, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("owner", sa.String, nullable=True),
        sa.Column("claimed_until", sa.Double, nullable=False),
        sa.Column("checkpoint", DIGEST, nullable=True),
        sa.Column("run_id", sa.String, nullable=True),
        sa.Column("model_id", sa.String, nullable=True),
        sa.Column("version", sa.String, nullable=True),
        sa.Column("updated_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("model", "recipe", name="pk_stockpot_registrations"),
        _belongs_to("recipes", "registrations", "recipe"),
    )


def _belongs_to(owner: str, table: str, column: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        [column], [f"stockpot_{owner}.digest"], name=f"fk_stockpot_{table}_{column}"
    )
