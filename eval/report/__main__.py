import sys

from eval.report.command import main

sys.exit(main(sys.argv[1:]))
