"""Lets `python -m edgekd` do what the `edgekd` command does."""

from edgekd.cli import main

if __name__ == "__main__":
    main()
