.venv/bin/mypy 2>&1 | tail -30; .venv/bin/lint-imports 2>&1 | tail -12
