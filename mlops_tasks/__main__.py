"""`alphaops <verb>`, or `python -m mlops_tasks <verb>`."""

import sys

from mlops_tasks import cli
from mlops_tasks.private import be_private


def main() -> int:
    """Run one verb; what it writes is its owner's alone."""
    be_private()
    return cli.main()


if __name__ == "__main__":  # workers that this process starts import it under another name
    sys.exit(main())
