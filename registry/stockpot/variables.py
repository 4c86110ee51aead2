"""The environment, read beside threads that change it: MLflow's client is told some things that way alone."""

import os


def variables() -> dict[str, str]:
    """All that are set, each as it was read: one that another thread takes away meanwhile is not among them.

    `os.environ` itself lists names first, and raises KeyError for one that is gone by the time it is read.
    """
    found = ((name, os.environ.get(name)) for name in list(os.environ))
    return {name: value for name, value in found if value is not None}
