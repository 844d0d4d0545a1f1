"""What a process may have of the system."""

import subprocess
import sys

FILES = """
import resource
from gateway.processes import allow_files
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
least = min(hard, 200) if hard != resource.RLIM_INFINITY else 200
resource.setrlimit(resource.RLIMIT_NOFILE, (100, least))
print(allow_files(), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_as_many_files_may_be_open_as_the_system_allows():
    """Connections that no descriptor is left for are closed by the event loop, and neither logged nor counted."""
    done = subprocess.run([sys.executable, "-c", FILES], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["200", "200", "200"]
