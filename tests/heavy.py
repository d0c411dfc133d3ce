"""What `make test-fast` leaves out: files whose tests need a server, a browser, a process of their own or a simulation.

A test of another file that starts a process or reaches a server fails there, so that this list is kept.
"""

import sys

FOLDERS = frozenset({"dags", "docs", "e2e", "plugins", "provenance", "security", "serving"})
FILES = frozenset(
    {
        "data/sources/test_download.py",
        "data/sources/test_postgresql.py",
        "data/sources/test_synthetic.py",
        "data/sources/test_vendors.py",
        "data/test_approvals.py",
        "data/test_bad_input.py",
        "data/test_callbacks.py",
        "data/test_corporate_actions.py",
        "data/test_data_docs.py",
        "data/test_diff.py",
        "data/test_full_disk.py",
        "data/test_measures.py",
        "data/test_qlib_store.py",
        "data/test_releases.py",
        "data/test_rules.py",
        "data/test_staging.py",
        "data/test_sync.py",
        "data/test_vintages.py",
        "evaluation/test_backtest_overfitting.py",
        "evaluation/test_gate.py",
        "evaluation/test_gate_year.py",
        "evaluation/test_tasks.py",
        "evaluation/test_worse.py",
        "experiments/test_comparison.py",
        "experiments/test_delivered.py",
        "experiments/test_cross_validation.py",
        "experiments/test_dated.py",
        "experiments/test_model_set.py",
        "experiments/test_model_table.py",
        "experiments/test_rates.py",
        "experiments/test_switchback.py",
        "experiments/test_winners.py",
        "features/test_catalogue.py",
        "features/test_incremental.py",
        "features/test_indicators.py",
        "features/test_parity.py",
        "features/test_parity_random.py",
        "features/test_qlib_handler.py",
        "features/test_reading.py",
        "features/test_store.py",
        "monitoring/test_retraining.py",
        "monitoring/test_tasks.py",
        "operators/test_emitted_lineage.py",
        "operators/test_timetable.py",
        "properties/test_property_10_scheduling_fairness.py",
        "properties/test_property_1_feature_triggers.py",
        "properties/test_property_2_training_progress.py",
        "properties/test_property_4_qlib_conversion.py",
        "properties/test_property_6_alert_timeliness.py",
        "properties/test_property_8_data_versions.py",
        "registry/test_explained.py",
        "registry/test_features_cli.py",
        "registry/test_features_in_use.py",
        "registry/test_models.py",
        "registry/test_origins.py",
        "registry/test_presentation.py",
        "registry/test_replay.py",
        "registry/test_runs.py",
        "registry/test_lineage.py",
        "registry/test_server.py",
        "registry/test_tasks.py",
        "registry/test_trial_evidence.py",
        "stack/test_celery_profile.py",
        "stack/test_doctor.py",
        "stack/test_health.py",
        "stack/test_ports.py",
        "stack/test_processes.py",
        "stack/test_refused_starts.py",
        "stack/test_shared_artefacts.py",
        "state/alerts/test_delivery.py",
        "state/alerts/test_raising.py",
        "state/alerts/test_sinks.py",
        "state/alerts/test_watching.py",
        "state/test_approvals.py",
        "state/test_lease.py",
        "state/test_migrations.py",
        "state/test_model_history.py",
        "state/test_model_index.py",
        "state/test_predictions.py",
        "state/test_scoring_keys.py",
        "state/test_state.py",
        "state/test_trials.py",
        "test_files.py",
        "test_lean_imports.py",
        "test_kernels.py",
        "test_layers.py",
        "test_process.py",
        "test_programs.py",
        "test_shared_store.py",
        "test_stage_server.py",
        "training/networks/test_contract.py",
        "training/networks/test_resumed.py",
        "training/networks/test_trainer.py",
        "training/test_adapters.py",
        "training/test_admission.py",
        "training/test_boosting.py",
        "training/test_zoo.py",
        "training/test_certificate.py",
        "training/test_control.py",
        "training/test_engine.py",
        "training/test_leak_attacks.py",
        "training/test_leaks.py",
        "training/test_planted_signals.py",
        "training/test_refusals.py",
        "training/test_resources.py",
        "training/test_resumed_models.py",
        "training/test_shared_training.py",
        "training/test_studies.py",
        "training/test_threads.py",
        "tuning/test_data_profile.py",
        "tuning/test_luck.py",
        "tuning/test_optimizer.py",
        "tuning/test_selector.py",
        "tuning/test_study.py",
        "tuning/test_tasks.py",
    }
)
"""Below `tests/`."""


def is_heavy(path: str) -> bool:
    """Whether a file, named from `tests/` on, is left out."""
    return path in FILES or path.partition("/")[0] in FOLDERS


_REFUSED = ("subprocess.Popen", "os.posix_spawn", "socket.connect")


def refuse_processes_and_servers() -> None:
    """From now on this process starts none and reaches none."""

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if event in _REFUSED:
            raise AssertionError(f"{event} {arguments}: add the test's file to tests/heavy.py, or do without")

    sys.addaudithook(watch)
