"""Pages below `/mlops/ui` of Airflow's API server, shown inside Airflow's own: models and trainings."""
