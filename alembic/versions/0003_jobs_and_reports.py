"""Leases, jobs with where they found their candidates, and reports of requests."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

DIGEST = sa.String(71)


def upgrade() -> None:
    _create_leases()
    _create_jobs()
    _create_candidates()
    _create_reports()


def downgrade() -> None:
    for table in ("reported", "reports", "candidates", "jobs", "leases"):
        op.drop_table(f"stockpot_{table}")
    with op.batch_alter_table("stockpot_registrations") as registrations:
        registrations.drop_index("ix_stockpot_registrations_recipe")
        registrations.add_column(sa.Column("owner", sa.String, nullable=True))
        registrations.add_column(sa.Column("claimed_until", sa.Double, nullable=False, server_default="0"))


def _create_leases() -> None:
    op.create_table(
        "stockpot_leases",
        sa.Column("name", sa.String, nullable=False),
        sa.Column("owner", sa.String, nullable=False),
        sa.Column("since", sa.Double, nullable=False),
        sa.Column("until", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_stockpot_leases"),
    )
    # An older program that still registers does not find its claim any more, and stops.
    with op.batch_alter_table("stockpot_registrations") as registrations:
        registrations.drop_column("owner")
        registrations.drop_column("claimed_until")
        registrations.create_index("ix_stockpot_registrations_recipe", ["recipe"])


def _create_jobs() -> None:
    op.create_table(
        "stockpot_jobs",
        sa.Column("name", DIGEST, nullable=False),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("request", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("answered_at", sa.Double, nullable=True),
        sa.Column("outcome", sa.JSON, nullable=True),
        sa.Column("evidence", sa.JSON, nullable=True),
        sa.PrimaryKeyConstraint("name", name="pk_stockpot_jobs"),
    )
    op.create_index("ix_stockpot_jobs_model", "stockpot_jobs", ["model"])


def _create_candidates() -> None:
    candidates = op.create_table(
        "stockpot_candidates",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("job", DIGEST, nullable=True),
        sa.Column("run_id", sa.String, nullable=False),
        sa.Column("path", sa.String, nullable=False),
        sa.Column("model_id", sa.String, nullable=True),
        sa.Column("checkpoint", DIGEST, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_stockpot_candidates"),
        sa.UniqueConstraint("job", "run_id", "path", name="uq_stockpot_candidates_job_run_id_path"),
        sa.ForeignKeyConstraint(["job"], ["stockpot_jobs.name"], name="fk_stockpot_candidates_job"),
    )
    for column in ("run_id", "checkpoint"):
        op.create_index(f"ix_stockpot_candidates_{column}", "stockpot_candidates", [column])
    ingested = sa.table("stockpot_ingested", sa.column("uri", sa.String), sa.column("document", sa.JSON))
    rows = op.get_bind().execute(sa.select(ingested.c.uri, ingested.c.document))
    if found := [place for uri, document in rows for place in _places(uri, document)]:
        op.bulk_insert(candidates, found)
    # Files were kept under their addresses. Where one may hold a password, the file is read once more.
    op.execute(sa.delete(ingested).where(sa.or_(ingested.c.uri.contains("@"), ingested.c.uri.contains("?"))))


def _places(uri: str, document: dict[str, Any]) -> list[dict[str, object]]:
    """The run and path of a file, where its address tells: .../<run id>/artifacts/<path>."""
    parts = uri.split("/")
    for place, part in enumerate(parts[1:-1], start=1):
        run_id, path = parts[place - 1], "/".join(parts[place + 1 :])
        if part == "artifacts" and len(run_id) == 32 and not run_id.strip("0123456789abcdef"):
            checkpoint = document.get("checkpoint") or {}
            found = {"run_id": run_id, "path": path, "checkpoint": checkpoint.get("digest")}
            return [found] if checkpoint else []
    return []


def _create_reports() -> None:
    op.create_table(
        "stockpot_reports",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("digest", DIGEST, nullable=False),
        sa.Column("question", DIGEST, nullable=False),
        sa.Column("dataset", DIGEST, nullable=True),
        sa.Column("document", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_stockpot_reports"),
        sa.UniqueConstraint("digest", name="uq_stockpot_reports_digest"),
    )
    op.create_index("ix_stockpot_reports_dataset", "stockpot_reports", ["dataset"])
    op.create_table(
        "stockpot_reported",
        sa.Column("report", DIGEST, nullable=False),
        sa.Column("recipe", DIGEST, nullable=False),
        sa.PrimaryKeyConstraint("report", "recipe", name="pk_stockpot_reported"),
        sa.ForeignKeyConstraint(["report"], ["stockpot_reports.digest"], name="fk_stockpot_reported_report"),
        sa.ForeignKeyConstraint(["recipe"], ["stockpot_recipes.digest"], name="fk_stockpot_reported_recipe"),
    )
    op.create_index("ix_stockpot_reported_recipe", "stockpot_reported", ["recipe"])
