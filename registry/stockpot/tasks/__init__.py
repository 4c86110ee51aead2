"""Tasks that come with Stockpot, and how a task or a selection method is found by name."""
