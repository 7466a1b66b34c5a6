"""Runs the audit: `python -m veason.audit DATA`."""

import sys

from veason.audit.command import main

sys.exit(main())
