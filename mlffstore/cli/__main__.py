"""``python -m mlffstore.cli``."""

from mlffstore.cli.main import main

if __name__ == "__main__":
    main()
