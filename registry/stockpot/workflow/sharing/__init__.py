"""Evaluations that many processes share: each is leased, and its outcome is committed for all of them."""
