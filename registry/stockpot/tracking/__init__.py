"""MLflow: what a sweep logged, and where soups are registered. Importing this imports no MLflow."""

from stockpot.tracking.memory import MemoryTracker
from stockpot.tracking.mlflow_tracker import MlflowTracker

__all__ = ["MemoryTracker", "MlflowTracker"]
