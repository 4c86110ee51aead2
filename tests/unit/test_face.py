"""What programs import: few names, light, the same as what the command does."""

import subprocess
import sys

import pytest

import stockpot

HEAVY = ("torch", "mlflow", "prefect", "sqlalchemy", "numpy", "pydantic", "rich")


def _python(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout


def test_importing_the_package_loads_nothing_else() -> None:
    program = f"import sys, stockpot; print([name for name in {HEAVY} if name in sys.modules])"
    assert _python(program) == "[]\n"


def test_making_a_request_loads_nothing_heavy() -> None:
    program = (
        "import sys; from stockpot import Accept, SoupRequest\n"
        "SoupRequest(model='birds', task='arrays', sweep='1f0c', accept=Accept.BETTER)\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    assert _python(program) == "[]\n"


def test_searching_and_deciding_a_rejection_load_no_torch() -> None:
    program = (
        "import sys, stockpot.selection, stockpot.evaluation.rejection.tally; print('torch' in sys.modules)"
    )
    assert _python(program) == "False\n"


def test_every_name_of_the_face_is_there_and_a_misspelt_one_is_not() -> None:
    for name in stockpot.__all__:
        assert getattr(stockpot, name)
        assert name in dir(stockpot)
    with pytest.raises(AttributeError, match="soop"):
        stockpot.soop  # noqa: B018 - looked up


@pytest.mark.parametrize(
    "before", ["", "import stockpot.soup\n", "from stockpot.soup import build\n", "import stockpot.calls\n"]
)
def test_soup_is_the_call_whatever_was_imported_before(before: str) -> None:
    program = (
        f"{before}from stockpot import SoupRequest, soup\n"
        "try: soup()\n"
        "except TypeError as error: print(error)\n"
        "import stockpot.soup\n"
        "assert callable(stockpot.soup) and stockpot.soup.build\n"
    )
    assert "soup() missing 1 required positional argument: 'request'" in _python(program)
