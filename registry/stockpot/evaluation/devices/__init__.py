"""Devices: which to use, how their faults are told from the task's, how much memory is left."""
