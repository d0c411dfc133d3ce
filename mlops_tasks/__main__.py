"""`python -m mlops_tasks <verb>`."""

import sys

from mlops_tasks.cli import main
from mlops_tasks.private import be_private

if __name__ == "__main__":  # workers that this process starts import it under another name
    be_private()
    sys.exit(main())
