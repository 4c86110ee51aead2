"""MLflow: what a sweep logged, and where soups are registered. Importing this imports no MLflow."""

from registry.tracking.memory import MemoryTracker
from registry.tracking.mlflow_tracker import MlflowTracker

__all__ = ["MemoryTracker", "MlflowTracker"]
