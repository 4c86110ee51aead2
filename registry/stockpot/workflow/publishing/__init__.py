"""From a report to versions in MLflow's Model Registry, and what their pages say."""
