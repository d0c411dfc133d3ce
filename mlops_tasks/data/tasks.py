"""The stages of a sync: read, validate, version, compare, write Qlib's store, publish.

Each is idempotent and may be killed at any point: what it writes is named by its identity and appears in one step, so
the next try finds it complete or makes it. Only the last stage brings a vintage into use.
"""

import logging
from dataclasses import replace
from typing import cast

from mlops_tasks.config import Settings, load_settings
from mlops_tasks.data.callbacks import tell_callbacks
from mlops_tasks.data.qlib.store import ensure_store, prune_stores, write_qlib_store
from mlops_tasks.data.revisions.acceptance import Acceptance, assess
from mlops_tasks.data.revisions.approvals import approve, find_approval
from mlops_tasks.data.snapshots import checkout_vintage, is_kept, pin_vintage
from mlops_tasks.data.sources import ParsedBars, read_source
from mlops_tasks.data.validation import staging as store
from mlops_tasks.data.validation.data_docs import evidence_of, render_index, render_suites
from mlops_tasks.data.validation.expectations import load_suites
from mlops_tasks.data.validation.rules import Rules, Validation, check_vintage, load_rules, validate
from mlops_tasks.data.vintages import canonical_bars, current_version, load_vintage, publish, write_vintage
from mlops_tasks.errors import OvertakenVintageError, StoreError, VintageRejectedError, excerpt
from mlops_tasks.files import folder_lock
from mlops_tasks.stage_results import (
    ComparedVintages,
    Published,
    ReadSource,
    RenderedDocs,
    Snapshot,
    Validated,
    WrittenStore,
)

log = logging.getLogger(__name__)


def raise_alert(settings: Settings, *, kind: str, subject: str, message: str) -> None:
    """`state.alerts.raise_alert`, imported here so that stages without an alert load no database libraries."""
    from mlops_tasks.state import alerts

    alerts.raise_alert(settings, kind=kind, subject=subject, message=message)


def read_source_task(*, source: str | None = None, universe: str | None = None) -> ReadSource:
    """Parse a source (None: that of the settings) into staging. A rerun on the same content finds it there."""
    settings = load_settings()
    chosen = source or settings.data.source
    parsed = read_source(settings, chosen, universe or settings.data.universe)
    with folder_lock(settings.data_dir):
        if _is_concluded(settings, store.staging_id(parsed)):
            staging = store.staging_id(parsed)
            log.info("%s: nothing new, staging %s was versioned before", chosen, staging)
        else:
            staging = store.write_staging(settings, parsed)
    if parsed.failed:
        told = "; ".join(f"{name}: {reason}" for name, reason in sorted(parsed.failed.items()))
        raise_alert(settings, kind="instruments_not_fetched", subject=staging, message=f"{chosen}: {told}")
    return {"staging": staging, "rows": len(parsed.frame), "source": chosen}


def validate_bars_task(*, staging: str) -> Validated:
    """Run the expectations and quarantine what fails.

    Raises
    ------
    VintageRejectedError
        The rows cannot become a vintage. The quarantine is still written, and the last good vintage stays in use.
    """
    settings = load_settings()
    report = _validation_report(settings, staging)
    log.info("received %s, accepted %s, quarantined %s", report.received, report.accepted, report.quarantined)
    for rule, count in (report.rules | report.warnings).items():
        log.info("rule %s: %s", rule, count)
    if report.instruments:
        told = "; ".join(f"{name}: {', '.join(rules)}" for name, rules in report.instruments.items())
        raise_alert(settings, kind="instruments_quarantined", subject=staging, message=told)
    if report.rejected:
        raise_alert(settings, kind="vintage_rejected", subject=staging, message=report.rejected)
        raise VintageRejectedError(report.rejected)
    return {
        "staging": staging,
        "received": report.received,
        "accepted": report.accepted,
        "quarantined": report.quarantined,
        "rules": report.rules,
    }


def render_docs_task(*, staging: str) -> RenderedDocs:
    """Render Great Expectations' pages of a conclusion, good or bad, into its data docs, if the settings ask for them.

    Raises
    ------
    StoreError
        There is no conclusion about these rows.
    """
    settings = load_settings()
    evidence = store.read_evidence(settings, staging)
    if store.has_docs(settings, staging, evidence):
        return {"staging": staging, "pages": []}
    pages = render_suites(evidence, load_suites())
    with folder_lock(settings.data_dir):
        if not store.add_docs(settings, staging, evidence, pages):
            log.info("staging %s was validated again meanwhile; that validation's own task renders it", staging)
    return {"staging": staging, "pages": sorted(pages)}


def version_snapshot_task(*, staging: str) -> Snapshot:
    """Write the accepted bars as an immutable vintage and pin it in DVC.

    Raises
    ------
    StoreError
        The rows were not validated under the present rules, or were rejected.
    """
    settings = load_settings()
    with folder_lock(settings.data_dir):
        report = store.find_report(settings, staging, _rules(settings))
        if report is None or report.rejected:
            raise StoreError(f"staging {staging} is not validated or was rejected; run data.validate_bars on it first")
        data_version = report.data_version
        if not (data_version and is_kept(settings, data_version)):
            parsed, accepted = store.accepted_rows(settings, staging)
            bars = canonical_bars(parsed.frame[accepted])
            origin = {"source": parsed.source, "raw": report.raw}
            counts = {"received": report.received, "quarantined": report.quarantined}
            data_version = write_vintage(settings, bars, parsed.universe, origin | counts).data_version
            pin_vintage(settings, data_version)
            store.write_report(settings, replace(report, data_version=data_version))
    vintage = checkout_vintage(settings, data_version)
    return {
        "data_version": vintage.data_version,
        "changed": vintage.data_version != current_version(settings),
        "rows": vintage.rows,
        "instruments": vintage.instruments,
        "first_date": vintage.first_date,
        "last_date": vintage.last_date,
    }


def compare_vintages_task(
    *,
    data_version: str,
    approve_version: str | None = None,
    approve_reason: str | None = None,
    approved_by: str | None = None,
) -> ComparedVintages:
    """Compare a vintage with the one in use, and judge what changed; `diff` is the diff's folder relative to home.

    `approve_version` is what a person approves in the trigger form. It counts only if it is exactly the version that
    the sync has made.

    Raises
    ------
    VintageRejectedError
        The policy blocks the change and nobody approved it. The vintage in use stays, and the diff is kept.
    StoreError
        The approval has no reason.
    """
    settings = load_settings()
    if approve_version:
        _approve(settings, data_version, approve_version, approve_reason or "", approved_by)
    found = _acceptable(settings, data_version)
    if found.decision == "warn":
        raise_alert(settings, kind="history_changed", subject=data_version, message=found.text)
    log.info("vintage %s against %s: %s", data_version, found.old, found.decision)
    return cast("ComparedVintages", found.to_json())


def write_qlib_store_task(*, data_version: str) -> WrittenStore:
    """Derive Qlib's binary store from a vintage; `path` is relative to home."""
    settings = load_settings()
    path = write_qlib_store(settings, load_vintage(settings, data_version))
    return {"data_version": data_version, "path": settings.relative(path)}


def publish_vintage_task(*, data_version: str) -> Published:
    """Bring a vintage into use in one step, and remove what its sync left in staging and older Qlib stores.

    Then the callbacks are called (`data/callbacks.py`). One that fails undoes nothing and does not fail the stage.
    Another sync may have recycled this one's Qlib store before it was in use, or may have brought another vintage into
    use than the one that this was compared with, so both are checked here.

    Raises
    ------
    VintageRejectedError
        The policy blocks the change from the vintage that is in use by now.
    """
    settings = load_settings()
    while (changed := _publish_after(settings, _acceptable(settings, data_version))) is None:
        log.info("another vintage came into use meanwhile: comparing again")
    tell_callbacks(settings)
    return {
        "data_version": data_version,
        "last_date": load_vintage(settings, data_version).last_date,
        "changed": changed,
    }


def _approve(settings: Settings, data_version: str, meant: str, reason: str, by: str | None) -> None:
    """Record a person's approval of the vintage at hand, once."""
    old = current_version(settings)
    if meant != data_version:
        log.warning("the approval is for %s, but this vintage is %s: it does not count", excerpt(meant), data_version)
    elif old not in (None, data_version) and find_approval(settings, str(old), data_version) is None:
        approve(settings, data_version, reason, by)


def _acceptable(settings: Settings, data_version: str) -> Acceptance:
    """The acceptance of a vintage; VintageRejectedError where it is blocked, after an alert."""
    found = assess(settings, data_version)
    if found.decision != "block":
        return found
    raise_alert(settings, kind="vintage_blocked", subject=data_version, message=found.text)
    with folder_lock(settings.data_dir):
        store.clean_staging(settings, data_version)
    raise VintageRejectedError(found.text)


def _publish_after(settings: Settings, found: Acceptance) -> bool | None:
    """Publish a vintage. If another one is in use than the one it was compared with, do nothing and return None."""
    from mlops_tasks.state.history import record_publication
    from mlops_tasks.state.tables import Publication

    with folder_lock(settings.data_dir):
        if current_version(settings) not in {found.old, found.data_version}:
            return None
        ensure_store(settings, load_vintage(settings, found.data_version))
        try:
            changed = publish(settings, found.data_version, instead_of=found.old)
        except OvertakenVintageError:
            return None
        record_publication(settings, Publication(data_version=found.data_version))
        prune_stores(settings)
        store.clean_staging(settings, found.data_version)
        return changed


def _rules(settings: Settings) -> str:
    return load_rules(settings).digest()


def _is_concluded(settings: Settings, staging: str) -> bool:
    """Whether exactly this content is a pinned and undamaged vintage already, under the present rules."""
    report = store.find_report(settings, staging, _rules(settings))
    return report is not None and bool(report.data_version) and is_kept(settings, report.data_version)


def _validation_report(settings: Settings, staging: str) -> store.ValidationReport:
    """The conclusion about these rows, made now if it does not exist yet.

    Another sync of the same content may conclude, publish and clean up whenever the lock is free, so each step looks
    for its conclusion first.
    """
    rules = load_rules(settings)
    with folder_lock(settings.data_dir):
        report = store.find_report(settings, staging, rules.digest())
        if report is not None:
            return report
        parsed = store.read_staging(settings, staging)
    validation = validate(parsed.frame, rules)
    concluded = _conclude(settings, parsed, staging, (rules, validation))
    rejected, suite_pages = concluded.rejected, settings.data.suite_pages
    docs = render_index(validation, rules, title=parsed.source, rejected=rejected, suite_pages=suite_pages)
    evidence = evidence_of(validation, rules, rejected=rejected) if suite_pages else []
    with folder_lock(settings.data_dir):
        report = store.find_report(settings, staging, rules.digest())
        if report is None:
            store.write_quarantine(settings, concluded, validation, docs, evidence)
        return report or concluded


def _conclude(
    settings: Settings, parsed: ParsedBars, staging: str, judged: tuple[Rules, Validation]
) -> store.ValidationReport:
    rejected = ""
    rules, validation = judged
    quarantine = store.quarantine_path(settings, staging)
    try:
        check_vintage(validation, rules, quarantine)
    except VintageRejectedError as error:
        rejected = str(error)
    return store.ValidationReport(
        staging=staging,
        source=parsed.source,
        rules_digest=rules.digest(),
        received=validation.received,
        accepted=validation.received - validation.quarantined,
        quarantined=validation.quarantined,
        rules=validation.rules,
        warnings=validation.warnings,
        rejected=rejected,
        instruments=validation.quarantined_instruments,
        calendars=validation.measures.calendar_counts(),
        fatal=validation.fatal,
        released=validation.released,
        **store.origin_of(parsed),
    )
