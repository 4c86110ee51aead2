"""What an answer depended on: a request that is repeated by another process is answered from it."""

import subprocess
import sys
import time

import pytest

from stockpot.evidence import evidence_of

WALKED_THEN_ASKED = """
import os, sys, time
from stockpot.evidence import evidence_of, still_holds
os.environ[sys.argv[1]] = "set in the process that walked"
found = evidence_of({"python": sys.executable}, since=time.time())
del os.environ[sys.argv[1]]
print(found.whole, still_holds(found))
"""
"""In a process of its own: other tests leave modules behind whose files are gone."""


@pytest.mark.parametrize("text", ["a label, " * 1000, "", "\0", "x" * 300])
def test_an_argument_that_is_no_path_ends_no_walk_and_names_no_file(text: str) -> None:
    found = evidence_of({"labels": text}, since=time.time())

    assert found is None or not found.whole


@pytest.mark.parametrize(
    ("variable", "holds"),
    [("TORCHINDUCTOR_CACHE_DIR", "True"), ("CUDA_MODULE_LOADING", "True"), ("CUDA_VISIBLE_DEVICES", "False")],
)
def test_what_torch_sets_while_it_works_changes_no_answer(variable: str, holds: str) -> None:
    command = [sys.executable, "-c", WALKED_THEN_ASKED, variable]

    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert told.split() == ["True", holds]
