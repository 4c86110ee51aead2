"""The rows. They never leave this folder.

Names start with ``stockpot_``: the database may be MLflow's own, and that grows tables every release.
"""
# ruff: noqa: D102 - SQLAlchemy documents what a TypeDecorator does

import struct
import zlib
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Double,
    ForeignKey,
    LargeBinary,
    MetaData,
    String,
    UniqueConstraint,
    false,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from stockpot.documents import from_document, to_document
from stockpot.entities import (
    Composition,
    Digest,
    EvaluationProtocol,
    IngestedSource,
    Selection,
    SoupReport,
    SoupRequest,
)

QUICKLY = 3
"""How hard zlib tries: scores of 0 and 1 take a sixth of the time of its usual 6, and a third more room."""


class Document(TypeDecorator[Any]):
    """An entity as JSON."""

    impl = JSON
    cache_ok = True

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.kind = kind

    def process_bind_param(self, value: Any, _dialect: Dialect) -> Any:
        return to_document(value)

    def process_result_value(self, value: Any, _dialect: Dialect) -> Any:
        return from_document(self.kind, value)


class Floats(TypeDecorator[tuple[float, ...]]):
    """Numbers, bit by bit: little-endian float64, zlib-compressed."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: Any, _dialect: Dialect) -> bytes | None:
        return None if value is None else zlib.compress(struct.pack(f"<{len(value)}d", *value), QUICKLY)

    def process_result_value(self, value: Any, _dialect: Dialect) -> tuple[float, ...] | None:
        if value is None:
            return None
        packed = zlib.decompress(value)
        return struct.unpack(f"<{len(packed) // 8}d", packed)


class Hints(TypeDecorator[tuple[float, ...]]):
    """Numbers that need not be exact: little-endian float32, zlib-compressed."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: Any, _dialect: Dialect) -> bytes | None:
        import numpy as np  # whoever reads or writes these has it; a command that does neither waits for none

        with np.errstate(over="ignore"):
            return (
                None if value is None else zlib.compress(np.asarray(value).astype("<f4").tobytes(), QUICKLY)
            )

    def process_result_value(self, value: Any, _dialect: Dialect) -> tuple[float, ...] | None:
        import numpy as np

        return None if value is None else tuple(np.frombuffer(zlib.decompress(value), "<f4").tolist())


class Row(DeclarativeBase):
    """A row of any table."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
        }
    )
    type_annotation_map = {float: Double(), Digest: String(71)}  # noqa: RUF012 - SQLAlchemy reads it so


class IngestedRow(Row):
    """What reading a weights file found."""

    __tablename__ = "stockpot_ingested"
    uri: Mapped[str] = mapped_column(primary_key=True)
    document: Mapped[IngestedSource] = mapped_column(Document(IngestedSource))


class RecipeRow(Row):
    """A recipe, or an ensemble, that an evaluation, a selection or a registration brought in."""

    __tablename__ = "stockpot_recipes"
    digest: Mapped[Digest] = mapped_column(primary_key=True)
    document: Mapped[Composition] = mapped_column(Document(Composition))


class IngredientRow(Row):
    """A recipe's ingredient again, so that SQL can ask which recipes hold a checkpoint."""

    __tablename__ = "stockpot_ingredients"
    recipe: Mapped[Digest] = mapped_column(ForeignKey(RecipeRow.digest), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    checkpoint: Mapped[Digest] = mapped_column(index=True)
    coefficient: Mapped[float]


class ProtocolRow(Row):
    """A protocol that something was measured under."""

    __tablename__ = "stockpot_protocols"
    digest: Mapped[Digest] = mapped_column(primary_key=True)
    document: Mapped[EvaluationProtocol] = mapped_column(Document(EvaluationProtocol))
    mixed_bounds_withdrawn: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Examples were found whose outputs depend on their batch."""
    question: Mapped[Digest] = mapped_column(index=True)
    """Of the question alone, so that SQL finds what was answered under other conditions."""


class EvaluationRow(Row):
    """The committed score of a recipe under a protocol."""

    __tablename__ = "stockpot_evaluations"
    recipe: Mapped[Digest] = mapped_column(ForeignKey(RecipeRow.digest), primary_key=True)
    protocol: Mapped[Digest] = mapped_column(ForeignKey(ProtocolRow.digest), primary_key=True)
    value: Mapped[float | None]
    """The score's, for people who look with SQL; NULL for NaN, which SQLite cannot hold."""
    n: Mapped[int]
    examples: Mapped[tuple[float, ...]] = mapped_column(Floats)
    created_at: Mapped[float]
    """Seconds since the epoch, as in every table."""
    metric: Mapped[tuple[float, ...] | None] = mapped_column(Floats)
    """Of the whole split, then without each block; NULL where the score is a mean."""
    gaps: Mapped[tuple[float, ...] | None] = mapped_column(Hints)
    """`Score.gaps`; NULL in rows of revision 0003 and before."""


class BoundRow(Row):
    """The least upper bound known of a recipe's score under a protocol, of mixed ones and of others."""

    __tablename__ = "stockpot_bounds"
    recipe: Mapped[Digest] = mapped_column(ForeignKey(RecipeRow.digest), primary_key=True)
    protocol: Mapped[Digest] = mapped_column(ForeignKey(ProtocolRow.digest), primary_key=True)
    mixed: Mapped[bool] = mapped_column(primary_key=True)
    upper: Mapped[float]
    updated_at: Mapped[float]


class OverlayRow(Row):
    """What the rule of a recipe's overlay has led to."""

    __tablename__ = "stockpot_overlays"
    recipe: Mapped[Digest] = mapped_column(ForeignKey(RecipeRow.digest), primary_key=True)
    overlay: Mapped[Digest]
    """Of the content."""
    created_at: Mapped[float]
    content: Mapped[bytes]
    """A safetensors file: some hundred KB of a large model."""


class SelectionRow(Row):
    """The record of a search."""

    __tablename__ = "stockpot_selections"
    id: Mapped[int] = mapped_column(primary_key=True)
    """Grows: the order of the commits."""
    digest: Mapped[Digest] = mapped_column(unique=True)
    """Of the document and the protocol together."""
    recipe: Mapped[Digest] = mapped_column(ForeignKey(RecipeRow.digest), index=True)
    protocol: Mapped[Digest] = mapped_column(ForeignKey(ProtocolRow.digest))
    document: Mapped[Selection] = mapped_column(Document(Selection))
    created_at: Mapped[float]


class LeaseRow(Row):
    """Who works on what now. What nobody works on has no row."""

    __tablename__ = "stockpot_leases"
    name: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    since: Mapped[float]
    until: Mapped[float]
    """By the database's clock, as ``since``."""


class RegistrationRow(Row):
    """What makes registration happen once per model and recipe."""

    __tablename__ = "stockpot_registrations"
    model: Mapped[str] = mapped_column(primary_key=True)
    recipe: Mapped[Digest] = mapped_column(ForeignKey(RecipeRow.digest), primary_key=True, index=True)
    state: Mapped[str] = mapped_column(String(16))
    checkpoint: Mapped[Digest | None]
    run_id: Mapped[str | None]
    model_id: Mapped[str | None]
    version: Mapped[str | None]
    updated_at: Mapped[float]


class ReportRow(Row):
    """What was measured for a request."""

    __tablename__ = "stockpot_reports"
    id: Mapped[int] = mapped_column(primary_key=True)
    """Grows: the order of the commits."""
    digest: Mapped[Digest] = mapped_column(unique=True)
    """Of the document."""
    question: Mapped[Digest]
    """Of the request and its candidates: a request that is repeated has one."""
    dataset: Mapped[Digest | None] = mapped_column(index=True)
    """Of the report split; NULL where nothing was measured on it."""
    document: Mapped[SoupReport] = mapped_column(Document(SoupReport))
    created_at: Mapped[float]


class ReportedRow(Row):
    """A recipe in the table of a report, so that SQL finds the reports that tell of it."""

    __tablename__ = "stockpot_reported"
    report: Mapped[Digest] = mapped_column(ForeignKey(ReportRow.digest), primary_key=True)
    recipe: Mapped[Digest] = mapped_column(ForeignKey(RecipeRow.digest), primary_key=True, index=True)


class JobRow(Row):
    """A request about one state of a sweep, and what it ended in."""

    __tablename__ = "stockpot_jobs"
    name: Mapped[Digest] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(index=True)
    request: Mapped[SoupRequest] = mapped_column(Document(SoupRequest))
    created_at: Mapped[float]
    answered_at: Mapped[float | None]
    """By the database's clock; NULL while there is no answer."""
    outcome: Mapped[Any | None] = mapped_column(JSON(none_as_null=True))
    """Plain, as is the evidence: an older program's may lack what is read today."""
    evidence: Mapped[Any | None] = mapped_column(JSON(none_as_null=True))
    opening: Mapped[Any | None] = mapped_column(JSON(none_as_null=True))
    """Plain for the same reason; NULL until the job's splits are opened."""
    asked_at: Mapped[float | None]
    """By the database's clock, as all times below: when a trigger asked for it last."""
    failed_at: Mapped[float | None]
    """Of the last attempt, where that failed."""
    fault: Mapped[str | None]
    attempts: Mapped[int] = mapped_column(default=0, server_default="0")
    """Those that failed or were lost."""
    predecessor: Mapped[Digest | None]
    """The job of the same request about an earlier state of the sweep, where there was one."""
    rule: Mapped[str | None]
    """The name of the rule that asked for it last."""


class WatermarkRow(Row):
    """How far a scan has looked at the experiment of a rule."""

    __tablename__ = "stockpot_watermarks"
    name: Mapped[str] = mapped_column(primary_key=True)
    begun: Mapped[float]
    """What ended before is none of the rule's business."""
    until: Mapped[float]
    """What ended before was looked at."""


class SweepRow(Row):
    """A sweep that a scan has seen, for a rule."""

    __tablename__ = "stockpot_sweeps"
    sweep: Mapped[str] = mapped_column(primary_key=True)
    """Its parent run's id."""
    rule: Mapped[str] = mapped_column(primary_key=True)
    """The rule's name."""
    moved: Mapped[float]
    """When one of its runs began or ended last, by MLflow."""
    look_at: Mapped[float | None] = mapped_column(index=True)
    """When to look at it again, by the database's clock; NULL where nothing is left to do."""
    tag: Mapped[str | None]
    """What people asked for it by: what its parent's tag `stockpot.soup` held, a version with an alias."""
    job: Mapped[Digest | None]
    """The job that the rule wants of it. Another one that it asked for, and that is not done, is replaced."""


class CandidateRow(Row):
    """Where a checkpoint was found: a run, and a path in its artifacts. Addresses may hold passwords."""

    __tablename__ = "stockpot_candidates"
    __table_args__ = (UniqueConstraint("job", "run_id", "path"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    job: Mapped[Digest | None] = mapped_column(ForeignKey(JobRow.name))
    """NULL where it was read before jobs were kept."""
    run_id: Mapped[str] = mapped_column(index=True)
    path: Mapped[str]
    model_id: Mapped[str | None]
    checkpoint: Mapped[Digest] = mapped_column(index=True)
    sweep: Mapped[str | None]
    """The parent run's id or the experiment's name, where no job tells."""


class TrailRow(Row):
    """An entry of a registered model's trail. No row is ever changed or removed."""

    __tablename__ = "stockpot_trail"
    model: Mapped[str] = mapped_column(primary_key=True)
    born: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    """When MLflow made the model, in milliseconds since the epoch."""
    number: Mapped[int] = mapped_column(primary_key=True)
    """1, 2, ... One process wins each."""
    kind: Mapped[str] = mapped_column(String(16))
    at: Mapped[float]
    """By the database's clock."""
    by: Mapped[str]
    reason: Mapped[str]
    fact: Mapped[Any] = mapped_column(JSON)
    previous: Mapped[Digest | None]
    digest: Mapped[Digest] = mapped_column(unique=True)
    """Of all else, in canonical JSON."""


class WatchRow(Row):
    """What the entries of a trail add up to, and when somebody looked at the model last."""

    __tablename__ = "stockpot_watches"
    model: Mapped[str] = mapped_column(primary_key=True)
    born: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    number: Mapped[int]
    """Of the newest entry, as `digest` and `at`."""
    digest: Mapped[Digest]
    at: Mapped[float]
    mlflow: Mapped[str]
    looked: Mapped[float | None]
    """By the database's clock."""
    aliases: Mapped[Any] = mapped_column(JSON)
    gone: Mapped[bool]


class AskRow(Row):
    """What somebody asked for in MLflow, was tried, and has no answer yet."""

    __tablename__ = "stockpot_asks"
    name: Mapped[Digest] = mapped_column(primary_key=True)
    """Of the ask and of the policy."""
    model: Mapped[str]
    born: Mapped[int] = mapped_column(BigInteger)
    """As in the trail."""
    uri: Mapped[str]
    why: Mapped[str]
    fault: Mapped[str]
    """Empty where whoever tried was killed, or is at it."""
    attempts: Mapped[int]
    failed_at: Mapped[float]
    """By the database's clock."""


class VersionRow(Row):
    """A version that holds a soup, or did: a row never goes. Promoted copies have none."""

    __tablename__ = "stockpot_versions"
    recipe: Mapped[Digest] = mapped_column(ForeignKey(RecipeRow.digest), primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[str] = mapped_column(primary_key=True)
    checkpoint: Mapped[Digest] = mapped_column(index=True)
    run_id: Mapped[str | None] = mapped_column(index=True)
    model_id: Mapped[str | None]
    seen_at: Mapped[float]


class RecallRow(Row):
    """A person's word about a run, a checkpoint or data. None is ever changed or removed."""

    __tablename__ = "stockpot_recalls"
    id: Mapped[int] = mapped_column(primary_key=True)
    """Grows: the order of the words."""
    kind: Mapped[str] = mapped_column(String(16))
    name: Mapped[str]
    reason: Mapped[str]
    by: Mapped[str]
    withdrawn: Mapped[bool]
    at: Mapped[float]
    """By the database's clock."""
