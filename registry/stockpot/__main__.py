"""``python -m stockpot``: the command."""

from stockpot.cli import main

if __name__ == "__main__":
    main()
