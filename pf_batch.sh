PYTHONPATH=. .venv/bin/python pf_assign.py
rm -rf /tmp/w/pf_png; mkdir /tmp/w/pf_png; PYTHONPATH=. .venv/bin/python pf_png.py /tmp/w/pf_png | grep -v "is better" | cut -c1-200
.venv/bin/python -m pytest -q --durations=12 tests/experiments/test_bad_input.py tests/experiments/test_day_schedule.py tests/experiments/test_ab_test_report.py tests/plots/test_plots.py tests/experiments/test_prediction_metrics.py tests/experiments/test_daily_analysis.py 2>&1 | tail -120
