"""``python -m rtsep`` is ``rtsep``."""

from rtsep.cli import main

if __name__ == "__main__":
    main()
