"""E-mail by Airflow's own connection to a mail server, through its SMTP provider.

`python -m mlops_tasks.operators.mail <connection>`, in Airflow's environment, reads a message from standard input and
sends it. Sender, server and password come from the connection.
"""

import html
import os
import sys
from email import message_from_binary_file, policy
from email.message import EmailMessage

KEPT_HEADERS = ("Message-ID", "References", "Auto-Submitted")


def send(connection: str, letter: EmailMessage) -> None:
    """Send a message with its own Message-ID; errors are Airflow's and smtplib's."""
    from airflow.providers.smtp.hooks.smtp import SmtpHook

    body = letter.get_body(("plain",))
    text = "" if body is None else body.get_content()
    with SmtpHook(connection) as hook:
        hook.send_email_smtp(
            to=[each.strip() for each in str(letter["To"]).split(",")],
            subject=str(letter["Subject"]),
            html_content=f"<pre>{html.escape(text)}</pre>",
            from_email=hook.from_email or str(letter["From"]),
            custom_headers={name: str(letter[name]) for name in KEPT_HEADERS},
        )


def main(arguments: list[str]) -> int:
    """Send the message on standard input."""
    # Airflow looks a connection up in its database only when it takes the process for one of its servers.
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    letter = message_from_binary_file(sys.stdin.buffer, policy=policy.default)
    assert isinstance(letter, EmailMessage)
    send(arguments[0], letter)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
