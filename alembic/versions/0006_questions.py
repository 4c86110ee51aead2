"""Protocols in two parts, and the question's name beside each."""

import hashlib
import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

DIGEST = sa.String(71)
QUESTION = ("task", "task_version", "task_args", "split", "dataset", "n", "modules", "distributions")
CONDITIONS = ("dtype", "tf32", "batch_size", "device", "torch_version", "software")
LATER = ("modules", "distributions", "software")
"""They have no part in a name while they are empty."""

Document = dict[str, Any]
PROTOCOLS = sa.table(
    "stockpot_protocols",
    sa.column("digest", DIGEST),
    sa.column("document", sa.JSON),
    sa.column("question", DIGEST),
)
REPORTS = sa.table("stockpot_reports", sa.column("id", sa.Integer), sa.column("document", sa.JSON))


def upgrade() -> None:
    with op.batch_alter_table("stockpot_protocols") as protocols:
        protocols.add_column(sa.Column("question", DIGEST, nullable=True))
    for digest, document in _rows(PROTOCOLS.c.digest, PROTOCOLS.c.document):
        nested = _nested(document)
        changed = {"document": nested, "question": _name(nested["question"])}
        op.execute(sa.update(PROTOCOLS).where(PROTOCOLS.c.digest == digest).values(**changed))
    with op.batch_alter_table("stockpot_protocols") as protocols:
        protocols.alter_column("question", existing_type=DIGEST, nullable=False)
        protocols.create_index("ix_stockpot_protocols_question", ["question"])


def downgrade() -> None:
    for digest, document in _rows(PROTOCOLS.c.digest, PROTOCOLS.c.document):
        changed = {"document": _flat(document)}
        op.execute(sa.update(PROTOCOLS).where(PROTOCOLS.c.digest == digest).values(**changed))
    # Whoever reads two parts reads flat ones in reports as well; the older program reads flat ones only.
    for number, report in _rows(REPORTS.c.id, REPORTS.c.document):
        changed = {"document": {**report, "protocols": [_flat(one) for one in report["protocols"]]}}
        op.execute(sa.update(REPORTS).where(REPORTS.c.id == number).values(**changed))
    with op.batch_alter_table("stockpot_protocols") as protocols:
        protocols.drop_index("ix_stockpot_protocols_question")
        protocols.drop_column("question")


def _rows(*columns: sa.ColumnElement[Any]) -> list[Any]:
    return list(op.get_bind().execute(sa.select(*columns)))


def _nested(flat: Document) -> Document:
    def part(names: tuple[str, ...]) -> Document:
        return {name: flat[name] for name in names if name in flat}

    return {"question": part(QUESTION), "conditions": part(CONDITIONS)}


def _flat(protocol: Document) -> Document:
    return {**protocol["question"], **protocol["conditions"]} if "question" in protocol else protocol


def _name(question: Document) -> str:
    named = {name: value for name, value in question.items() if value or name not in LATER}
    text = json.dumps(named, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return f"sha256:{hashlib.sha256(text.encode('ascii')).hexdigest()}"
