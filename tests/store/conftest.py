from pathlib import Path

import pytest


@pytest.fixture(params=["sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database. PostgreSQL joins with a second parameter here."""
    assert request.param == "sqlite"
    return f"sqlite:///{tmp_path}/stockpot.db"
