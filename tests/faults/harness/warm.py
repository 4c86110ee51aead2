"""Loaded once, before all commands: what a process otherwise spends ten seconds on when it begins."""

import tempfile
from pathlib import Path

import matplotlib.backends.backend_agg
import mlflow.pyfunc
import numpy as np
import torch
import torch._dynamo
from matplotlib.figure import Figure
from mlflow.models import infer_signature
from tests.faults.harness import command

import stockpot.figure
import stockpot.store
import stockpot.tracking.mlflow_packaging
import stockpot.workflow.reconciling
import stockpot.workflow.trace
import stockpot_flows.address
from stockpot.testing.tiny import FEATURES, dense

__all__ = ["command", "matplotlib", "mlflow", "stockpot", "stockpot_flows"]


def _warm_up() -> None:
    """Do once what keeps what it finds for the whole process: the packages of modules, the tracer, fonts."""
    torch.set_num_threads(1)
    example = np.zeros((2, FEATURES), dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        mlflow.pytorch.save_model(
            dense(),
            Path(folder, "model"),
            signature=infer_signature(example, example),
            input_example=example,
            pip_requirements=["torch", "numpy"],
            serialization_format="pt2",
        )
        mlflow.pytorch.load_model(str(Path(folder, "model")))
    figure = Figure(layout="constrained")
    figure.add_subplot().set_title("a")
    matplotlib.backends.backend_agg.FigureCanvasAgg(figure).draw()  # type: ignore[no-untyped-call]


_warm_up()
