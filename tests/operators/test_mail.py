"""Airflow's connection to a mail server tells alerts, by its provider, in a process of its own."""

from pathlib import Path

import pytest

from mlops_tasks.config import AlertSettings, Settings
from mlops_tasks.state.alerts.sinks import SinkError, make_sink
from tests.state.alerts.receivers import Mailbox, mail_server
from tests.state.alerts.test_sinks import NOTICE


def test_a_letter_goes_by_airflows_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the token as its id; a server that refuses it, and a connection that is not there, are errors."""
    alerts = AlertSettings(airflow_connection="desk_mail", airflow_to=("ann@desk.test", "bob@desk.test"))
    sink = make_sink(Settings(home=tmp_path, alerts=alerts), "airflow_email")
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    with mail_server(Mailbox()) as box:
        address = f"smtp://127.0.0.1:{box.port}/?disable_ssl=true&disable_tls=true&from_email=airflow%40desk.test"
        monkeypatch.setenv("AIRFLOW_CONN_DESK_MAIL", address)
        sink.tell(NOTICE)
        (letter,) = box.letters
        box.answers = ["554 no"] * 9
        with pytest.raises(SinkError, match="Airflow's provider failed"):
            sink.tell(NOTICE)
    assert letter["From"] == "airflow@desk.test" and NOTICE.token in letter["Message-ID"]
    assert box.recipients == [["ann@desk.test", "bob@desk.test"]]
    html = letter.get_body(("html",))
    assert html is not None and NOTICE.message in html.get_content()
