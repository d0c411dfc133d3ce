"""The REST API and the live event stream below `/mlops/v1` of Airflow's API server.

Airflow loads plugins in every process; only `lazy.py` of this package is imported there.
"""
