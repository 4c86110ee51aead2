"""A real sweep on real data, for `make demo`: digits images, a small network, a local MLflow."""
