import sys

from veason.predict.command import main

sys.exit(main())
