"""What a server is made of before its workers count anything."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["server", "workers", "wsgi_worker", "wsgi"])
def test_what_comes_before_the_workers_does_not_import_what_they_count_with(module):
    """prometheus_client decides when it is imported whether several processes count together."""
    program = f"import sys, longshore.serving.{module}; sys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
