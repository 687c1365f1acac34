"""``python -m longshore.serving``."""

import sys

from longshore.serving.server import main

if __name__ == "__main__":
    sys.exit(main())
