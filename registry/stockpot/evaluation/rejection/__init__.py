"""Early rejection: when it is certain (`tally`), and what to evaluate next (the rest)."""
