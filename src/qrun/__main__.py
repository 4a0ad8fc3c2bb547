"""`python -m qrun` is the `qrun` command."""

from qrun.cli import main

if __name__ == "__main__":
    main()
