"""``python -m farmlease`` is the command ``farmlease``."""

from farmlease.cli import main

if __name__ == "__main__":
    main()
