"""Runs migrations: on the connection that `stockpot.store.schema` hands over or, for a developer's
``alembic -x url=sqlite:///trial.db revision --autogenerate -m "what changes"``, on one of its own.
"""

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection, MetaData


def migrate(connection: Connection, models: MetaData | None = None) -> None:
    """Run them within the connection's transaction."""
    context.configure(
        connection=connection,
        target_metadata=models,
        version_table="stockpot_alembic_version",  # the database may be MLflow's own
        render_as_batch=True,  # SQLite alters tables by making new ones
    )
    context.run_migrations()


def migrate_for_developer() -> None:
    """Compare with the models of this checkout; the migrations themselves import nothing of them."""
    from stockpot.store.schema import connected
    from stockpot.store.tables import Row

    url = context.get_x_argument(as_dictionary=True).get("url")
    if not url:
        raise CommandError("name a database: alembic -x url=sqlite:///trial.db ...")
    with connected(str(url), writes=True) as connection:
        migrate(connection, Row.metadata)


if "connection" in context.config.attributes:
    migrate(context.config.attributes["connection"])
else:
    migrate_for_developer()
