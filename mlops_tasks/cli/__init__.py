"""The command line: what a person or a script does without a DAG."""

from mlops_tasks.cli.verbs import main

__all__ = ["main"]
