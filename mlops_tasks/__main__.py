"""`python -m mlops_tasks <verb>`."""

import sys

from mlops_tasks.cli import main

if __name__ == "__main__":  # workers that this process starts import it under another name
    sys.exit(main())
