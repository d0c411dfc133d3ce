"""Alerts: kept in the state database, told to a webhook where one is configured."""

import logging

import httpx

from mlops_tasks.config import Settings
from mlops_tasks.state.history import find_alert, has_alert, record_alert
from mlops_tasks.state.tables import Alert, now

log = logging.getLogger(__name__)

_told: dict[tuple[str, str, str], bool] = {}
"""Home, kind and subject of the daily alerts that this process has told today, and whether they are recorded."""


def raise_alert(settings: Settings, *, kind: str, subject: str, message: str) -> bool:
    """Tell the people on call, once for each equal alert; return whether it was new.

    The webhook (`alerts.webhook_url`) hears of it first and the record follows, so that a kill in between repeats
    the call rather than losing it. A webhook that does not answer is logged and never fails the stage: the record,
    the log and `alphaops status` have the alert all the same.
    """
    row = Alert(kind=kind, subject=subject, message=message)
    if find_alert(settings, row) is not None:
        return False
    log.error("alert %s, %s: %s", kind, subject, message)
    _call_webhook(settings, row)
    return record_alert(settings, row)


def raise_daily_alert(settings: Settings, *, kind: str, cause: str, message: str) -> bool:
    """Tell the people on call once a cause and UTC day, whatever the message; return whether they were told now.

    For those who must go on: nothing is raised. While the state database does not answer, the log and the webhook
    have the alert, once per process; the record follows with the first call after the database is back.
    """
    day = str(now().date())
    row = Alert(kind=kind, subject=f"{cause} on {day}", message=message)
    key = (str(settings.home), kind, row.subject)
    if _told.get(key):
        return False
    try:
        known = has_alert(settings, row)
    except Exception as error:
        log.warning("the state database cannot say whether this is known: %s: %s", type(error).__name__, error)
        known = False
    new = not known and key not in _told
    if new:
        log.error("alert %s, %s: %s", kind, row.subject, message)
        _call_webhook(settings, row)
    for old in [each for each in _told if not each[2].endswith(day)]:
        del _told[old]
    _told[key] = known or _is_recorded(settings, row)
    return new


def _is_recorded(settings: Settings, row: Alert) -> bool:
    try:
        record_alert(settings, row)
    except Exception as error:
        log.error("the alert is not recorded: %s: %s", type(error).__name__, error)
        return False
    return True


def _call_webhook(settings: Settings, alert: Alert) -> None:
    url = settings.alerts.webhook_url
    if url is None:
        return
    body = {
        "text": f"{alert.kind} {alert.subject}: {alert.message}",
        "kind": alert.kind,
        "subject": alert.subject,
        "message": alert.message,
    }
    try:
        with httpx.Client(transport=httpx.HTTPTransport(retries=2), timeout=settings.alerts.timeout_s) as client:
            client.post(url.get_secret_value(), json=body).raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        # The address may hold a token, and httpx puts it into its messages: only the kind of error is shown.
        status = f" {error.response.status_code}" if isinstance(error, httpx.HTTPStatusError) else ""
        log.warning("the alert webhook was not told (%s%s); correct alerts.webhook_url", type(error).__name__, status)
