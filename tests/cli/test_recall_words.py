"""What a recall says of an alias that points at what it reaches."""

import pytest

from stockpot.cli.recalling import _told
from stockpot.entities import Recall, RecallKind, Standing, digest_of_bytes
from stockpot.workflow.lineage.recall import Reached, Recalling


@pytest.mark.parametrize(
    ("alias", "how"),
    [
        ("champion", "; where a policy guards it, stockpot promote URI --to champion --reason TEXT"),
        ("challenger", "moves it: to another version, or away, on the model's page in MLflow"),
    ],
)
def test_an_alias_is_told_with_what_moves_it(alias: str, how: str) -> None:
    """The gate guards no challenger, so that `promote` would refuse it."""
    one = Reached("models:/birds/1", Standing.THERE, digest_of_bytes(b"any"), (alias,))
    found = Recalling(Recall(RecallKind.RUN, "r", "why", "ann"), (), (one,))
    assert _told(one, found).endswith(how)
