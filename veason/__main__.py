"""`python -m veason` is the console command `veason`."""

import sys

from veason.cli import main

if __name__ == "__main__":
    sys.exit(main())
