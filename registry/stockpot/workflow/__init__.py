"""The use cases, in the order of the walk: `gathering`, `selecting`, `publishing`.

Plain functions over the ports. They know neither MLflow nor Prefect nor SQL; `stockpot_flows` runs them as
tasks.
"""
