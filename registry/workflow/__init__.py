"""The use cases: gather a sweep, rank it, search for recipes, measure them, publish soups, trace them.

Plain functions over the ports. They know neither MLflow nor Prefect nor SQL; `flows` runs them as tasks.
"""
