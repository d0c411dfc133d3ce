"""Receivers of alerts."""

from collections.abc import Iterator

import pytest

from tests.state.alerts.receivers import Channel, Mailbox, channel_open, mail_server


@pytest.fixture
def channel() -> Iterator[Channel]:
    """A running webhook."""
    with channel_open() as server:
        yield server


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    """What a running SMTP server without encryption takes in."""
    with mail_server(Mailbox()) as box:
        yield box
