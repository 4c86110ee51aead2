"""A sweep has a row for each rule, which knows the job that it wants; a job knows its rule."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

DIGEST = sa.String(71)
JOBS = sa.table(
    "stockpot_jobs",
    *(sa.column("name", DIGEST), sa.column("request", sa.JSON), sa.column("asked_at", sa.Double)),
    sa.column("rule", sa.String),
)
SWEEPS = sa.table(
    "stockpot_sweeps",
    *(sa.column("sweep", sa.String), sa.column("rule", sa.String), sa.column("job", DIGEST)),
)


def upgrade() -> None:
    with op.batch_alter_table("stockpot_jobs") as jobs:
        jobs.add_column(sa.Column("rule", sa.String, nullable=True))
    with op.batch_alter_table("stockpot_sweeps") as sweeps:
        sweeps.add_column(sa.Column("job", DIGEST, nullable=True))
        sweeps.drop_constraint("pk_stockpot_sweeps", type_="primary")
        sweeps.create_primary_key("pk_stockpot_sweeps", ["sweep", "rule"])
    # Scans alone asked for jobs, and each sweep had one rule.
    about = JOBS.c.request["sweep"].as_string() == SWEEPS.c.sweep
    rule = sa.select(SWEEPS.c.rule).where(about).scalar_subquery()
    op.execute(sa.update(JOBS).where(JOBS.c.asked_at.is_not(None)).values(rule=rule))
    newest = sa.select(JOBS.c.name).where(about, JOBS.c.asked_at.is_not(None))
    newest = newest.order_by(JOBS.c.asked_at.desc(), JOBS.c.name).limit(1)
    op.execute(sa.update(SWEEPS).values(job=newest.scalar_subquery()))


def downgrade() -> None:
    other = SWEEPS.alias()
    first = sa.select(sa.func.min(other.c.rule)).where(other.c.sweep == SWEEPS.c.sweep).scalar_subquery()
    op.execute(sa.delete(SWEEPS).where(SWEEPS.c.rule != first))
    with op.batch_alter_table("stockpot_sweeps") as sweeps:
        sweeps.drop_column("job")
        sweeps.drop_constraint("pk_stockpot_sweeps", type_="primary")
        sweeps.create_primary_key("pk_stockpot_sweeps", ["sweep"])
    with op.batch_alter_table("stockpot_jobs") as jobs:
        jobs.drop_column("rule")
