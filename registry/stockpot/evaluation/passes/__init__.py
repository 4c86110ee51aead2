"""A pass over a split: what the task gives, checked and in batches, through the model."""
