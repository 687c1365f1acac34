"""``python -m longshore.serving.health PORT PATH``: whether a server here answers, for a container's health check.

Images have no curl; and a health check that runs every half minute should import next to nothing.
"""

from __future__ import annotations

import http.client
import sys
from collections.abc import Sequence

__all__ = ["main"]

_SECONDS = 4


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if what listens on the port answers the path with 200, else 1 and the reason."""
    port, path = sys.argv[1:] if arguments is None else arguments
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=_SECONDS)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        print(f"no answer on port {port}: {error}", file=sys.stderr)
        return 1
    finally:
        connection.close()
    if answer.status != http.client.OK:
        print(f"not ready: status {answer.status}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
