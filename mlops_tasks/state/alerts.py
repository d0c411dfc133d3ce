"""Alerts: kept in the state database, told to a webhook where one is configured."""

import logging

import httpx

from mlops_tasks.config import Settings
from mlops_tasks.state.history import find_alert, record_alert
from mlops_tasks.state.tables import Alert

log = logging.getLogger(__name__)


def raise_alert(settings: Settings, *, kind: str, subject: str, message: str) -> bool:
    """Tell the people on call, once for each equal alert; return whether it was new.

    The webhook (`alerts.webhook_url`) hears of it first and the record follows, so that a kill in between repeats
    the call rather than losing it. A webhook that does not answer is logged and never fails the stage: the record,
    the log and `python -m mlops_tasks status` have the alert all the same.
    """
    row = Alert(kind=kind, subject=subject, message=message)
    if find_alert(settings, row) is not None:
        return False
    log.error("alert %s, %s: %s", kind, subject, message)
    _call_webhook(settings, row)
    return record_alert(settings, row)


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
