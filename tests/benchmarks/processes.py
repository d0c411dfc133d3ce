"""Each side of a benchmark in a process of its own, so that neither warms or burdens the other."""

import json
import subprocess
import sys
from typing import Any


def in_process(module: str, side: str, *arguments: object) -> dict[str, Any]:
    """Run `python -m <module> <side> <arguments>`; its last line is its result, as JSON."""
    command = [sys.executable, "-W", "ignore", "-m", module, side, *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])
