"""`python -m tests.benchmarks [name]`: run one benchmark, or list them.

A benchmark is a module `bench_<name>.py` with `run() -> dict`; the dict is printed as JSON on the last line.
"""

import importlib
import json
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
NAMES = sorted(path.stem.removeprefix("bench_") for path in FOLDER.glob("bench_*.py"))


def main(arguments: list[str]) -> int:
    if not arguments:
        for name in NAMES:
            module = importlib.import_module(f"tests.benchmarks.bench_{name}")
            print(f"{name:20} {module.__doc__.strip().splitlines()[0]}")
        return 0
    if arguments[0] not in NAMES:
        print(f"no benchmark {arguments[0]!r}; there are: {', '.join(NAMES)}")
        return 2
    result = importlib.import_module(f"tests.benchmarks.bench_{arguments[0]}").run()
    print(json.dumps(result))
    return 0


sys.exit(main(sys.argv[1:]))
