"""The command line: parse, validate, make one call, print.

Exit codes: 0 done, whether or not a soup is better; 1 unexpected; 2 wrong usage; 3 a bad request;
4 nothing to soup; 5 bad weights; 6 a task that breaks its contract; 7 the store; 8 MLflow; 10 Prefect.
"""

from stockpot.cli.app import app, main

__all__ = ["app", "main"]
