"""Prefect wiring only: what runs, in which order, under which names. What it does is in `stockpot`."""
