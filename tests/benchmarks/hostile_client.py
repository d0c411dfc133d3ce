"""A client with a valid token that wants the scoring service to stall or to burst.

`python -m tests.benchmarks.hostile_client <port> <seconds> <days>`: the token from the environment, trading days to ask
for as a JSON list. Its last line says what each kind of attack was answered.
"""

import contextlib
import http.client
import itertools
import json
import os
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

HEADERS = {"Authorization": f"Bearer {os.environ.get('MLOPS_SCORING_TOKEN', '')}"}
BAD_NUMBERS = ("1e400", "-1e400", "Infinity", "NaN", "true", '"1"', "1e39", "9" * 4000, "[1]", "{}", "null")


@dataclass
class Attack:
    """What the attackers share."""

    port: int
    until: float
    days: list[str]
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def on(self) -> bool:
        """Whether it goes on."""
        return time.monotonic() < self.until

    def post(self, kind: str, body: bytes, **headers: str) -> None:
        """One request on a connection of its own; what came of it is counted."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("POST", "/v1/score", body, {**HEADERS, **headers})
            answer = connection.getresponse()
            answer.read()
            self.counts[f"{kind} {answer.status}"] += 1
        except OSError as error:
            self.counts[f"{kind} {type(error).__name__}"] += 1
        except http.client.HTTPException as error:
            self.counts[f"{kind} {type(error).__name__}"] += 1
        finally:
            connection.close()

    def connect(self, first: bytes) -> socket.socket:
        """A connection on which something was sent."""
        made = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        made.sendall(first)
        return made


def large_bodies(attack: Attack) -> None:
    """Rows without end: right ones, wrong ones, nested ones, and names."""
    row = b"[" + b",".join([b"0.123456789"] * 158) + b"]"
    names, columns = json.dumps([f"S{i}" for i in range(4000)]), json.dumps([f"F{i}" for i in range(158)])
    table = b'{"table":{"instruments":%s,"feature_names":%s,"values":[%s]}}'
    bodies = [
        table % (names.encode(), columns.encode(), b",".join([row] * 4000)),
        b'{"instruments":[' + b",".join(b'"S%d"' % i for i in range(700_000)) + b"]}",
        b'{"rows":[' + b"[],[[[]]]," * 400_000 + b"[]]}",
        b"[" * 4_000_000,
    ]
    for body in itertools.cycle(bodies):
        if not attack.on:
            return
        attack.post("large", body)
        time.sleep(0.02)


def cold_dates(attack: Attack) -> None:
    """Every day that there is, and some that there are not."""
    for number, day in enumerate(itertools.cycle(attack.days)):
        if not attack.on:
            return
        attack.post("cold", json.dumps({"date": day if number % 5 else f"1{day[1:]}"}).encode())


def unfinished_headers(attack: Attack) -> None:
    """Headers a few bytes at a time, never to their end."""
    lines = [b"POST /v1/score HTTP/1.1\r\n"] + [f"X-{i}: {'a' * 100}\r\n".encode() for i in range(1000)]
    while attack.on:
        with contextlib.suppress(OSError):
            slow = [attack.connect(b"POST /v1/sc") for _ in range(20)]
            for line in lines:
                if not attack.on:
                    return
                for each in slow:
                    each.sendall(line)
                time.sleep(0.05)
        attack.counts["headers cut"] += 1


def slow_bodies(attack: Attack) -> None:
    """Bodies whose length is promised and that do not come."""
    head = f"POST /v1/score HTTP/1.1\r\nHost: x\r\nAuthorization: {HEADERS['Authorization']}\r\nContent-Length: "
    while attack.on:
        with contextlib.suppress(OSError):
            held = [attack.connect(f"{head}{size}\r\n\r\n{{".encode()) for size in (1000, 5_000_000)]
            time.sleep(1)
            for each in held:
                each.close()
        attack.counts["slow bodies"] += 1


def many_connections(attack: Attack) -> None:
    """More connections than anybody needs, open and silent."""
    held: list[socket.socket] = []
    while attack.on:
        with contextlib.suppress(OSError):
            held += [attack.connect(b"") for _ in range(25)]
        attack.counts["connections"] += 25
        for each in held[:-600]:
            each.close()
        held = held[-600:]
        time.sleep(0.25)


def bad_numbers(attack: Attack) -> None:
    """What is no number, in a row of one feature."""
    for number in itertools.cycle(BAD_NUMBERS):
        if not attack.on:
            return
        attack.post("bad", b'{"rows":[{"instrument":"A","features":{"KMID":%s}}]}' % number.encode())
        time.sleep(0.01)


ATTACKERS: tuple[Callable[[Attack], None], ...] = (
    large_bodies,
    large_bodies,
    cold_dates,
    cold_dates,
    unfinished_headers,
    slow_bodies,
    many_connections,
    bad_numbers,
)


def main(port: int, seconds: float, days: list[str]) -> None:
    """All of them at once. With a lower priority: elsewhere it would have a machine of its own."""
    os.nice(10)
    attack = Attack(port, time.monotonic() + seconds, days)
    threads = [threading.Thread(target=each, args=(attack,), daemon=True) for each in ATTACKERS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds + 40)
    print(json.dumps(dict(sorted(attack.counts.items()))))


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), json.loads(sys.argv[3]))
