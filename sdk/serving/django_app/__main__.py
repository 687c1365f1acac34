"""``python -m longshore.serving.django_app``: Django's commands."""

import sys

from longshore.serving.django_app.manage import main

if __name__ == "__main__":
    sys.exit(main())
