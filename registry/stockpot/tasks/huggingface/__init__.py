"""Tasks that need no code: a folder of data, and a folder with a model's configuration and tokenizer.

Nothing of transformers is imported before such a task is made. Nothing is ever downloaded, and no code of a
model's folder is run.
"""
