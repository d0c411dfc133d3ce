"""`python -m mlops_tasks <verb>`."""

import sys

from mlops_tasks.cli import main

sys.exit(main())
