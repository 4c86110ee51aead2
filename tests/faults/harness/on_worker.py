"""The flows that workers run, with the short leases and the tally of a trial."""

import os
from pathlib import Path

import torch
from prefect.runtime import flow_run
from tests.faults.harness import counting
from tests.faults.harness.command import LEASE_SECONDS

from stockpot.workflow import leases

torch.set_num_threads(1)
leases.LEASE_SECONDS = LEASE_SECONDS
counting.tally = Path(os.environ["STOCKPOT_HOME"]).parent / "tally"
if flow_run.flow_name == "help-sweep":
    counting.tally.with_suffix(".helper").touch()

from stockpot_flows.help_sweep import help_sweep  # noqa: E402 - it waits for as long as a lease lasts
from stockpot_flows.soup_sweep import soup_sweep  # noqa: E402

__all__ = ["help_sweep", "soup_sweep"]
