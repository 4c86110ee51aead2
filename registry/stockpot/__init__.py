"""Stockpot: from a finished hyperparameter sweep to a registered model soup."""
