"""``python -m mlffstore``."""

from mlffstore.cli.main import main

if __name__ == "__main__":
    main()
