.venv/bin/ruff check mlops_tasks dags tests/serving tests/dags tests/operators; .venv/bin/ruff format --check mlops_tasks dags tests/serving tests/dags tests/operators | tail -5
.venv/bin/mypy mlops_tasks/serving mlops_tasks/operators tests/serving/test_operations.py 2>&1 | tail -15
.venv/bin/python -m pytest -q -x tests/dags/test_dags.py tests/operators/test_stage.py tests/test_errors.py tests/test_layers.py tests/docs -k "not test_the_verbs" 2>&1 | tail -30
