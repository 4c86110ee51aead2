"""Sweeps that finish are found by rules, and asked for."""
