"""Typed settings, checked on construction.

They come from `include/config/settings.yaml`, `<home>/settings.yaml` and the environment (`MLOPS_<SECTION>__<KEY>`);
a later source wins. `MLOPS_HOME` names the folder of all run-time state (default: `var/` of the project).
"""

import os
import re
from collections.abc import Mapping
from copy import deepcopy
from datetime import date, datetime
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from mlops_tasks.entry_files import read_yaml_text, yaml_fault
from mlops_tasks.errors import ConfigError, excerpt
from mlops_tasks.files import plain_name
from mlops_tasks.states import Approval, QueuePolicy, Strategy

PROJECT = Path(__file__).resolve().parents[1]
ENV_PREFIX = "MLOPS_"

SYNTHETIC = "synthetic"
"""The source that needs no file: a seeded market."""

DateRange = tuple[date, date]


class Section(BaseModel):
    """A group of settings: frozen, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class StackSettings(Section):
    """Addresses and limits of the processes that `make up` starts."""

    host: str = "127.0.0.1"
    airflow_port: int = Field(8080, ge=1, le=65535)
    mlflow_port: int = Field(5500, ge=1, le=65535)
    scoring_port: int = Field(8600, ge=1, le=65535)
    profile: Literal["local", "celery"] = "local"
    """Where tasks run. `local`: in processes of the scheduler, with SQLite. `celery`: on workers that take them from a
    broker, with PostgreSQL (`celery`, docs/workers.md)."""
    part: Literal["all", "workers"] = "all"
    """What runs on this machine. `workers`: only workers, for a stack whose services run on another machine."""
    login: Literal["simple", "fab"] = "simple"
    """Who may log in to Airflow. `simple`: one admin, for one person. `fab`: named accounts, each with a role
    (docs/users.md)."""
    up_timeout_s: float = Field(5400, gt=0)
    """How long `make up` waits for the chain, in seconds."""
    retry_delay_s: float = Field(30, ge=0)
    """Pause before a failed task is retried, in seconds."""
    allow_root: bool = False
    """Let the stack run as root, as in a container."""

    @property
    def local_host(self) -> str:
        """The host under which this machine reaches its own services."""
        return "127.0.0.1" if self.host in {"0.0.0.0", "::", ""} else self.host  # noqa: S104

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        ports = [self.airflow_port, self.mlflow_port, self.scoring_port]
        if len(set(ports)) < len(ports):
            raise ValueError(f"airflow_port, mlflow_port and scoring_port must differ, got {ports}")
        return self


_POSTGRESQL_LINK = (
    "connect_timeout=10&keepalives_idle=20&keepalives_interval=5&keepalives_count=3&tcp_user_timeout=30000"
)
"""A connection to PostgreSQL whose network was cut is given up within 35 s; without this it may hang for two hours."""


class CelerySettings(Section):
    """Databases, broker and workers of the profile `celery`. Passwords come from the environment, not from here:
    PGPASSWORD, or addresses that hold one in `MLOPS_CELERY__DATABASE_URL` and `MLOPS_CELERY__BROKER_URL`."""

    database_url: str = ""
    """The PostgreSQL server: `postgresql://<user>@<host>:<port>`, without a database."""
    database_prefix: str = Field("alphaops", pattern=r"^[a-z][a-z0-9_]{0,40}$")
    """The databases are named after it: `<prefix>_airflow`, `_results`, `_mlflow` and `_state`. `make up` creates those
    that do not exist."""
    broker_url: str = ""
    """`redis://<host>:<port>/<number>` or `amqp://<user>@<host>:<port>/<virtual host>`."""
    workers: int = Field(2, ge=0, le=64)
    """Workers on this machine. They share its queue of trainings."""
    concurrency: int = Field(0, ge=0, le=256)
    """Tasks at once of each worker. 0: as many as this machine's pools have slots, and two, shared by its workers."""
    queues: tuple[Literal["light", "heavy", "training", "evaluation"], ...] = (
        "light",
        "heavy",
        "training",
        "evaluation",
    )
    """From which queues this machine's workers take tasks. A machine with a GPU may take `training` alone."""
    hosts: int = Field(1, ge=1, le=1000)
    """Machines with workers: Airflow's pools have the slots of this machine as many times."""
    least_disk_mb: int = Field(500, ge=0)
    """A worker with less free space than this on its disks takes no tasks."""
    visibility_timeout_s: int = Field(86_400, ge=1)
    """After how long Redis delivers a task again that was not acknowledged. A second delivery of a task that runs is
    ignored, so that a longer task loses nothing."""
    queued_timeout_s: int = Field(120, ge=10)
    """A task that no worker takes for so long is queued anew: its message may be lost with the broker."""

    @model_validator(mode="after")
    def _addresses_are_known(self) -> Self:
        # What was withheld from a stage is refused where it is needed.
        if self.database_url and not self.database_url.startswith(("postgresql://", "withheld")):
            raise ValueError("database_url: not a PostgreSQL server; e.g. postgresql://alphaops@db.example.com:5432")
        brokers = ("redis://", "rediss://", "amqp://", "amqps://", "withheld")
        if self.broker_url and not self.broker_url.startswith(brokers):
            raise ValueError("broker_url: neither Redis nor RabbitMQ; e.g. redis://mq.example.com:6379/0")
        return self


class DownloadSettings(Section):
    """How a network source sends requests to its vendor."""

    concurrency: int = Field(4, ge=1, le=64)
    """Requests in flight at once."""
    requests_per_s: float = Field(5.0, gt=0)
    attempts: int = Field(6, ge=1)
    """Attempts per request, including the first, with growing, jittered pauses between them."""
    backoff_s: float = Field(1.0, ge=0)
    """First pause; each later one is twice as long, up to `max_backoff_s`. A vendor's Retry-After is respected."""
    max_backoff_s: float = Field(60.0, ge=0)
    timeout_s: float = Field(30.0, gt=0)
    max_failed_share: float = Field(0.02, ge=0, le=1)
    """If a larger share of the instruments cannot be fetched, the whole read fails."""


EpochUnit = Literal["seconds", "milliseconds", "microseconds", "nanoseconds"]


class ColumnsOfSource(Section):
    """What the columns of a file or a database mean."""

    columns: dict[str, str] = {}
    """Maps standard names to the source's own column names, in place of the aliases in include/config/sources.yaml."""
    prices: Literal["adjusted", "raw"] | None = None
    """What open, high, low and close are when there is a factor. None: as `data.prices` says."""
    adjusted: Literal["factor", "ignore"] | None = None
    """How a column with an adjusted close is used. None: as `data.adjusted` says."""
    factor: Literal["from_preclose"] | None = None
    """`from_preclose`: where there is no factor, it is derived from the previous close as the exchange adjusted it for
    the day's corporate action. None: the factor column, if there is one."""


class TableSource(ColumnsOfSource):
    """A parquet or CSV file, or a folder of them, and its format."""

    kind: Literal["table"]
    path: str
    exclude: tuple[str, ...] = ()
    """Files in the folder that hold no bars: names, or paths below the folder, with `*` and `?`."""
    instrument_from: Literal["column", "file_name"] = "column"
    """`file_name`: each file holds one instrument and is named after it."""
    instrument_pattern: str | None = None
    """A regular expression that matches the whole file name without its suffix, with one group for the instrument:
    `daily_(.+)`. None: the whole name is the instrument."""
    encoding: str = "utf-8"
    """Encoding of CSV files: utf-8, gb18030, cp1252, utf-16, or any other that Python knows."""
    separator: str = Field(",", min_length=1, max_length=1)
    """Separator between the cells of CSV files; a tab is "\\t"."""
    decimal: Literal[".", ","] = "."
    """Decimal mark of numbers that are written as text."""
    thousands: Literal[",", ".", "'", "\u2019", "_", " ", "\u00a0", "\u202f"] | None = None
    """Thousands separator of numbers that are written as text."""
    date_format: str | None = None
    """Format of dates that are text, in Python's directives: %d/%m/%Y. None: year first (2018-02-07, 20180207)."""
    epoch_unit: EpochUnit | None = None
    """Unit of dates that are integers and count from 1970-01-01 UTC. None: recognised by their magnitude."""
    timezone: str | None = None
    """Time zone, such as Asia/Shanghai, whose date is taken of such numbers and of timestamps with a time zone.
    None: UTC, or the timestamp's own time zone."""
    header_rows: int | None = Field(None, ge=1, le=20)
    """Header lines of CSV files, before the first bar. None: one, or the three that yfinance writes."""

    @field_validator("instrument_pattern")
    @classmethod
    def _one_group(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                groups = re.compile(value).groups
            except re.error as error:
                raise ValueError(f"this is not a regular expression: {error}") from None
            if groups != 1:
                raise ValueError(f"it has {groups} groups; put ( ) around the instrument, and nothing else")
        return value

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str) -> str:
        try:
            b"a".decode(value)
        except UnicodeError:  # a single byte is not valid UTF-16
            return value
        except (LookupError, ValueError):
            raise ValueError("this is not a text encoding; use utf-8, gb18030, big5, cp1252, utf-16, ...") from None
        return value

    @field_validator("separator")
    @classmethod
    def _separates(cls, value: str) -> str:
        if value.isalnum() or value in '"\r\n.-+' or not value.isascii():
            raise ValueError('this cannot separate cells; use "," or ";" or "|" or "\\t"')
        return value

    @field_validator("date_format")
    @classmethod
    def _whole_date(cls, value: str | None) -> str | None:
        if value is not None:
            check_date_format(value)
        return value

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                ZoneInfo(value)
            except (ValueError, OSError, ZoneInfoNotFoundError):
                raise ValueError("this is not a time zone; use a name like America/New_York or Asia/Shanghai") from None
        return value

    @model_validator(mode="after")
    def _signs_differ(self) -> Self:
        if self.thousands == self.decimal:
            raise ValueError(f"decimal and thousands are both {self.decimal!r}; make them differ")
        if self.instrument_pattern is not None and self.instrument_from != "file_name":
            raise ValueError("instrument_pattern needs instrument_from: file_name")
        return self


def check_date_format(form: str) -> None:
    """Raise ValueError unless a day that is written in a format of `datetime.strptime` is read back as the same day."""
    for day in (date(2018, 2, 7), date(1999, 12, 31)):
        try:
            read = datetime.strptime(day.strftime(form), form).date()
        except (ValueError, re.error):
            read = None
        if read != day:
            raise ValueError("this does not determine a day; use %Y, %m and %d, as in %d/%m/%Y")


class PostgresqlSource(ColumnsOfSource):
    """A table, view or query in a PostgreSQL database."""

    kind: Literal["postgresql"]
    dsn_variable: str = Field("BARS_DSN", pattern=r"^\w+$")
    """The environment variable that holds the connection string. The string may contain a password, so it is not a
    setting, and the variable's name must not begin with MLOPS_."""
    table: str | None = None
    """Table or view, with or without schema."""
    query: str | None = None
    """A SELECT in place of `table`."""

    @field_validator("dsn_variable")
    @classmethod
    def _no_setting(cls, value: str) -> str:
        if value.startswith(ENV_PREFIX):
            raise ValueError(f"a name that begins with {ENV_PREFIX} would be read as a setting; choose another")
        return value

    @model_validator(mode="after")
    def _table_or_query(self) -> Self:
        if (self.table is None) == (self.query is None):
            raise ValueError("give either table or query, not both")
        return self


class VendorSource(Section):
    """A vendor that delivers one instrument per request."""

    kind: Literal["yahoo", "akshare", "baostock"]
    instruments: tuple[str, ...] | str = ()
    """Names in the project's spelling (AAPL, SH600000), or a file with one per line, or a membership file. Empty: the
    names in `data.universe`."""
    start: date = date(2010, 1, 1)
    download: DownloadSettings = DownloadSettings()


SourceSpec = Annotated[TableSource | PostgresqlSource | VendorSource, Field(discriminator="kind")]


class DataSettings(Section):
    """Where bars come from, and how many bad rows a vintage may contain."""

    source: str = "synthetic"
    """`synthetic`, a name in `sources`, a parquet or CSV file, or a folder of such files."""
    sources: dict[str, SourceSpec] = {}
    """Named sources: databases, vendors, files with their own column names."""
    universe: str | None = None
    """Point-in-time membership file in Qlib's format (instrument, first day, last day). None: every instrument."""
    universe_date_format: str | None = None
    """Format of its dates, in Python's directives: %d/%m/%Y. None: year first (2018-02-07)."""
    allowed_folders: tuple[str, ...] | None = None
    """Folders in which a form may name a source or a universe, besides those that the settings name. None: the folders
    of the configured source and universe, except a folder that also contains the whole installation."""
    prices: Literal["adjusted", "raw"] = "adjusted"
    """What the source's open, high, low and close are when there is a factor column (adjusted / raw)."""
    adjusted: Literal["factor", "ignore"] | None = None
    """How an adjusted close is used when there is no factor. `factor`: adjusted / close is the factor, and the prices
    are raw. `ignore`: not at all, so dividends stay in the returns. None: a source that has one is refused."""
    max_rejected_share: float = Field(0.005, ge=0, le=1)
    """If a larger share of the rows break a rule about rows, the whole vintage is rejected. The rows of a single day
    may always do so."""
    max_rejected_instruments_share: float = Field(0.05, ge=0, le=1)
    """The same for the share of instruments that are quarantined; a single one always may be."""
    suite_pages: bool = True
    """Whether a separate task lets Great Expectations render a page for each suite into the data docs."""
    on_sync: tuple[Annotated[str, Field(pattern=r"^[\w.]+:[\w.]+$")], ...] = ()
    """Functions `module:function` that are called with each data version that comes into use (`data/callbacks.py`)."""

    @field_validator("universe_date_format")
    @classmethod
    def _whole_date(cls, value: str | None) -> str | None:
        if value is not None:
            check_date_format(value)
        return value

    @field_validator("allowed_folders", mode="before")
    @classmethod
    def _parse_folders(cls, value: object) -> object:
        return tuple(filter(None, value.split(","))) if isinstance(value, str) else value

    @field_validator("on_sync", mode="before")
    @classmethod
    def _parse_callbacks(cls, value: object) -> object:
        return tuple(filter(None, value.split(","))) if isinstance(value, str) else value


class CalendarSettings(Section):
    """Trading calendars, named as in exchange_calendars (XNYS, XSHG, 24/7, ...)."""

    name: str = "auto"
    """Calendar of the bars. `auto`: the one that fits each instrument best."""
    schedule: str = "XNYS"
    """Calendar that the sync's schedule follows."""
    delay_min: float = Field(90.0, ge=0)
    """How long after a session's close its bars are considered complete, in minutes."""


VintageDecision = Literal["accept", "warn", "block"]


class VintagePolicySettings(Section):
    """Consequences of changes of history between two vintages; `data/revisions/policy.py` says how each is judged.

    Unless a setting says otherwise, a change beyond its limit blocks the vintage and a smaller one causes a warning.
    """

    max_restated_rows_share: float = Field(0.01, ge=0, le=1)
    """Share of the common rows whose price or volume differs."""
    max_price_change: float = Field(0.5, gt=0)
    """Largest relative change of a restated price."""
    max_readjusted_instruments_share: float = Field(0.2, ge=0, le=1)
    """Share of instruments whose history was re-adjusted by one constant ratio: accepted up to this limit, a warning
    beyond it."""
    max_refactored_instruments_share: float = Field(0.01, ge=0, le=1)
    """Share of instruments whose factors changed in any other way."""
    max_scaled_instruments_share: float = Field(0.1, ge=0, le=1)
    """Share of instruments with a field that is 10, 100, ... times what it was throughout: a change of units."""
    max_jumping_instruments_share: float = Field(0.01, ge=0, le=1)
    """Share of instruments with a move beyond 40% where the previous vintage had none."""
    max_removed_rows_share: float = Field(0.005, ge=0, le=1)
    """Share of the previous vintage's rows that are gone, not counting instruments that are gone entirely."""
    max_removed_instruments_share: float = Field(0.02, ge=0, le=1)
    """Share of the previous vintage's instruments that are gone."""
    min_coverage: float = Field(0.9, ge=0, le=1)
    """Smallest share of the instruments of the old last day that must have a bar on each new day that is a session of
    theirs."""
    earlier_end: VintageDecision = "block"
    """The last date is earlier than before."""
    calendar_changes: VintageDecision = "block"
    """A past day became a trading day, or is no longer one."""
    universe_changes: VintageDecision = "warn"
    """Past membership changed."""


class SyntheticSettings(Section):
    """The synthetic market; `data/sources/synthetic.py` says what is planted in it."""

    instruments: int = Field(60, ge=10)
    start: date = date(2022, 1, 3)
    days: int = Field(700, ge=30)
    """Trading days from `start` on; more days extend the same market."""
    seed: int = Field(7, ge=0)
    signal_strength: float = Field(0.08, ge=0, lt=1)
    """Population correlation of the planted signal with the return that it predicts."""


Address = Annotated[str, Field(pattern=r"^[^@\s<>,;]+@[^@\s<>,;]+$")]
"""A plain e-mail address, without a display name."""


class EmailSettings(Section):
    """A mail server and the recipients. The password is kept apart, as a secret (docs/alerts.md)."""

    host: str = Field(min_length=1)
    port: int = Field(587, ge=1, le=65535)
    security: Literal["starttls", "tls", "none"] = "starttls"
    """`starttls`: encrypted from the second command on; `tls`: encrypted from the first byte (port 465); `none`: not
    encrypted, and without a login."""
    ca_file: Path | None = None
    """Certificates that the server's certificate is checked against. None: those of the system."""
    user: str | None = None
    """User name of the login. None: no login."""
    sender: Address
    to: tuple[Address, ...] = Field(min_length=1)

    @field_validator("to", mode="before")
    @classmethod
    def _parse_addresses(cls, value: object) -> object:
        return _addresses(value)

    @model_validator(mode="after")
    def _no_open_password(self) -> Self:
        if self.security == "none" and self.user is not None:
            raise ValueError("the user's password would be sent unencrypted; use security: starttls or tls")
        return self


class AlertSettings(Section):
    """Who is notified when something needs attention, and how long a delay may last before it does.

    The alerts, their severities and their recipients are defined in include/config/alerts.yaml and
    `<home>/alerts.yaml`.
    """

    webhook_url: SecretStr | None = None
    """URL, e.g. of a chat channel, to which each alert is posted as JSON (`text`, `kind`, `subject`, `message`). It may
    contain a token: set it in the environment (MLOPS_ALERTS__WEBHOOK_URL)."""
    email: EmailSettings | None = None
    """A mail server through which mail is sent directly."""
    airflow_connection: str | None = Field(None, pattern=r"^[\w.-]+$")
    """Id of an Airflow connection to a mail server (`smtp_default`), through which Airflow's provider sends mail."""
    airflow_to: tuple[Address, ...] = ()
    """Recipients of that mail."""
    interval_s: float = Field(30.0, gt=0)
    """How often the scoring service checks what is wrong and which notifications are pending."""
    timeout_s: float = Field(10.0, gt=0)
    """How long a receiver may take to answer."""
    stale_after_s: float = Field(3600, ge=0)
    """How long the scoring service may be without a champion, or serve data older than the vintage in use."""
    scores_due_s: float = Field(14_400, ge=0)
    """How long after the publication of a vintage the champion's scores of its newest date may take."""

    @field_validator("airflow_to", mode="before")
    @classmethod
    def _parse_addresses(cls, value: object) -> object:
        return _addresses(value)

    @model_validator(mode="after")
    def _has_recipients(self) -> Self:
        if self.airflow_connection is not None and not self.airflow_to:
            raise ValueError("airflow_connection needs airflow_to, the recipients")
        return self


def _addresses(value: object) -> object:
    """A list that is a single string in the environment."""
    return tuple(filter(None, value.split(","))) if isinstance(value, str) else value


class FeatureSettings(Section):
    """Which feature set the chain computes, and how long the store keeps versions that nothing needs."""

    feature_set: str = "alpha158"
    """A built-in set, or one from include/config/feature_sets.yaml or `<home>/feature_sets.yaml`."""
    retention_days: int = Field(30, ge=0)
    """Feature versions younger than this are always kept; older ones only while a registered model needs them."""


class CertificateSettings(Section):
    """How the leak certificate is made."""

    cuts: int = Field(3, ge=1, le=20)
    """Number of dates at which the data is cut off and everything is recomputed."""


UnpicklingFamily = Literal["qlib", "sklearn"]


class ModelSettings(Section):
    """Limits for loading models, above all those whose files can run code when they are loaded."""

    unpickling_families: tuple[UnpicklingFamily, ...] = ()
    """Families whose files may run code when they are loaded. qlib files always can, as they are pickles; sklearn files
    can where an estimator uses types other than scikit-learn's plain ones. Such a model runs in a process of its own
    without secrets or network, which can read only the libraries and the model's files. Empty: no such model is
    loaded."""
    isolated_memory_mb: float = Field(4000, ge=500)
    """Memory (10^6 bytes) that such a process may use."""
    largest_artefact_mb: float = Field(4000, gt=0)
    """Largest model (10^6 bytes) that is fetched from MLflow."""

    @field_validator("unpickling_families", mode="before")
    @classmethod
    def _parse_families(cls, value: object) -> object:
        return tuple(filter(None, value.split(","))) if isinstance(value, str) else value


class TrainingSettings(Section):
    """Defaults of a training; the trigger form overrides them for one run."""

    models: tuple[str, ...] = ("lightgbm", "linear")
    horizon: int = Field(1, ge=1, le=60)
    """Trading days between the first tradable close (t+1) and the exit."""
    train: DateRange | None = None
    valid: DateRange | None = None
    test: DateRange | None = None
    seed: int = Field(42, ge=0)
    threads: int = Field(2, ge=1)
    time_limit_s: float = Field(3600, gt=0)
    """Time limit of one training, not counting the time for which it is queued or paused."""
    wait_limit_s: float = Field(86_400, gt=0)
    """How long a training task may be queued and paused in addition to that."""
    cancel_grace_s: float = Field(30, ge=0)
    """How long a cancelled training may take to end by itself before its processes are killed, in seconds."""
    sample_s: float = Field(5, ge=0.5)
    """Interval at which the resource usage of a training is measured, in seconds."""
    memory_limit_mb: float | None = Field(None, gt=0)
    """Memory (10^6 bytes) that all trainings on this machine may use together. None: what the machine or the container
    has available, less `memory_reserve_mb`."""
    memory_reserve_mb: float = Field(500, ge=0)
    slots: int | None = Field(None, ge=1)
    """Threads that all trainings on this machine may use together. None: one per core."""
    owner_weights: dict[str, Annotated[float, Field(gt=0)]] = {}
    """An owner's share of the machine while other owners wait, relative to theirs. The default is 1."""

    @field_validator("owner_weights", mode="before")
    @classmethod
    def _parse_weights(cls, value: object) -> object:
        return dict(pair.partition("=")[::2] for pair in value.split(",") if pair) if isinstance(value, str) else value

    @field_validator("train", "valid", "test", mode="before")
    @classmethod
    def _parse_range(cls, value: object) -> object:
        return value.split(":") if isinstance(value, str) else value

    @field_validator("models", mode="before")
    @classmethod
    def _parse_models(cls, value: object) -> object:
        return tuple(value.split(",")) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _all_segments_or_none(self) -> Self:
        given = [self.train, self.valid, self.test]
        if any(given) and not all(given):
            raise ValueError("give train, valid and test together, or none of them")
        if all(given):
            check_segments(self.train, self.valid, self.test)  # type: ignore[arg-type]
        return self


Sampler = Literal["tpe", "gp", "nsga2", "cmaes", "random"]
Pruner = Literal["none", "median", "hyperband", "wilcoxon"]
Objective = Literal["ic", "rank_ic", "icir", "rank_icir", "turnover", "drawdown"]


class TuningSettings(Section):
    """Defaults of a hyper-parameter search; the trigger form overrides them for one study."""

    sampler: Sampler = "tpe"
    pruner: Pruner = "median"
    objectives: tuple[Objective, ...] = Field(("rank_ic",), min_length=1)
    trials: int = Field(30, ge=1)
    """Total number of configurations that the workers try."""
    workers: int = Field(2, ge=1, le=64)
    """Workers that share a study in PostgreSQL. With SQLite there is only one."""
    storage_url: str = ""
    """SQLAlchemy URL of a separate database for studies. Default: a schema of its own beside the state database if that
    is PostgreSQL, else SQLite below `home`."""
    time_limit_s: float = Field(86_400, gt=0)
    """Time limit of one worker's task."""

    @field_validator("objectives", mode="before")
    @classmethod
    def _parse_objectives(cls, value: object) -> object:
        return tuple(value.split(",")) if isinstance(value, str) else value


class PortfolioSettings(Section):
    """Top-k dropout strategy and its costs, as in Qlib's `TopkDropoutStrategy` and `backtest_daily`."""

    topk: int = Field(50, ge=1)
    n_drop: int = Field(5, ge=0)
    open_cost_bps: float = Field(5.0, ge=0)
    close_cost_bps: float = Field(15.0, ge=0)
    min_cost: float = Field(5.0, ge=0)
    """Minimum cost of an order, in the account's currency."""
    account: float = Field(1e8, gt=0)
    limit_threshold: Literal["market"] | Annotated[float, Field(gt=0)] | None = "market"
    """Nothing is bought on a daily move of at least this, nor sold on one of at most minus this. `market`: the limit of
    each instrument's exchange (data/exchanges/price_limits.py: 9.5% or the board's own for A-shares, none in New York).
    A number: this limit for all instruments (0.095). None: every close can be traded."""
    delisting_return: float = Field(-0.3, ge=-1)
    """Return on the last close of a held instrument whose bars end before the vintage does; paid out on the next market
    day. -0.3 is the mean of delistings for poor performance in New York (Shumway, The Delisting Bias in CRSP Data,
    Journal of Finance 52, 1997). It is too harsh for a merger, which pays about the last close (0): where bars do not
    say why they end, a backtest should not flatter."""

    def holding(self, topk: int | None, n_drop: int | None) -> "PortfolioSettings":
        """The same settings with other values of `topk` and `n_drop`; None leaves a value unchanged."""
        given = {"topk": topk, "n_drop": n_drop}
        return self.model_copy(update={name: number for name, number in given.items() if number is not None})


class GateSettings(Section):
    """When a challenger replaces the champion; see `evaluation/gate.py`."""

    min_gain: float = Field(0.0, ge=0)
    """Smallest gain in mean daily rank IC that is required."""
    alpha: float = Field(0.05, gt=0, lt=1)
    """One-sided error budget of a year of 252 market days: the probability of at least one false promotion, spent in
    equal parts over the looks (interim comparisons) of the year. With `looks: daily`, the level of each look."""
    look_every_days: int = Field(21, ge=1)
    """Market days between two looks; also the minimum age of a champion that is refreshed."""
    looks: Literal["planned", "daily"] = "planned"
    """`planned`: one look every `look_every_days`. `daily`: every training is compared, each at the level `alpha`, and
    nothing bounds the errors of a year. That finds better models sooner. Among equal models at 0.05 it costs about one
    false promotion a year, and at least one in 70% of the years (docs/gate.md)."""
    non_inferiority_margin: float = Field(0.005, ge=0)
    """Largest loss of mean daily rank IC at which a model trained on newer bars may replace the champion."""
    min_coverage: float = Field(0.95, gt=0, le=1)
    """Smallest share of the universe's rows in the test segment that must have a finite score."""
    min_test_days: int = Field(20, ge=2)
    min_skill_days: int = Field(120, ge=2)
    """Smallest number of test days on which a first champion can prove its skill. With fewer it serves as
    `provisional`."""
    max_constant_days_share: float = Field(0.05, ge=0, le=1)
    """Largest share of test days on which all scores may be equal."""
    deflated_confidence: float = Field(0.95, gt=0, lt=1)
    """Smallest deflated Sharpe ratio, a probability, of a challenger that was chosen among the trials of a search."""
    max_overfitting_probability: float = Field(0.5, gt=0, le=1)
    """Largest probability of backtest overfitting of that search, and of a loss by its best trial."""


class DriftRetrainingRules(Section):
    """When drift starts a training of its own, beside those of new vintages; see docs/drift.md."""

    enabled: bool = False
    confirmed_days: int = Field(3, ge=1)
    """Successive market days, up to the newest one, that have the verdict `drift` for the champion."""
    min_importance: float = Field(0.05, ge=0, le=1)
    """Share of the score's importance that must be beyond the limit on each of these days. Drift of the scores
    themselves counts as all of it, and an unknown share is enough."""
    cooldown_days: int = Field(20, ge=1)
    """Market days during which drift starts no other training."""
    form: dict[str, Any] = {}
    """What the form of that run of daily_retraining says other than by default."""


class DriftSettings(Section):
    """What the drift report compares, and how often it may raise a false alert."""

    current_days: int = Field(20, ge=1)
    """Length of a window in trading days."""
    error_rate: float = Field(0.03, gt=0, lt=1)
    """Share of quiet days on which it may raise an alert."""
    retraining: DriftRetrainingRules = DriftRetrainingRules()


class ReplaySettings(Section):
    """Replays of registered versions; see docs/replay.md."""

    tolerance: float = Field(1e-6, ge=0)
    """Largest difference between a replayed score and the recorded one, relative to the standard deviation of the
    recorded scores, that is still within tolerance."""
    delay_min: float = Field(480.0, ge=0)
    """Minutes after each session's sync (`calendar.delay_min`) at which the DAG replay_models replays its sample."""
    sample: int = Field(1, ge=0)
    """Versions besides the champion that it replays: those that were never replayed, the oldest first, then those whose
    last replay is longest ago."""
    time_limit_s: float = Field(7200.0, gt=0)
    """How long a scheduled replay of one version may take, including the time for which it waits or gives way."""


class RolloutRules(Section):
    """Limits beyond which a candidate is rejected during its rollout. None: the rule does not apply."""

    max_error_rate: float | None = Field(0.01, ge=0, le=1)
    """Share of the candidate's requests that the champion had to answer instead."""
    max_latency_ratio: float | None = Field(3.0, gt=0)
    """99th percentile of the candidate's latency, relative to the champion's."""
    min_answers: int = Field(100, ge=1)
    """Answers that each model must have given before error rate and latency are judged."""
    min_coverage: float | None = Field(0.95, ge=0, le=1)
    """Smallest share of the instruments scored by the champion that the candidate must score."""
    min_rank_correlation: float | None = Field(0.0, ge=-1, le=1)
    """Spearman correlation of the candidate's scores with the champion's on the same day."""
    max_psi: float | None = Field(1.0, gt=0)
    """Population stability index of the candidate's standardised scores against the champion's on the same day, less
    what is expected by chance."""
    max_turnover: float | None = Field(None, ge=0, le=1)
    """Share of the names held that a switch from the champion would replace on one day. `portfolio.topk` names are
    held, or a fifth of all names if there are fewer than five times `portfolio.topk`."""


class QualityRules(Section):
    """When rank ICs on matured days take a champion out of service or reject a candidate."""

    alpha: float = Field(0.05, gt=0, lt=1)
    """One-sided error budget of all looks at one model together, divided equally among them (`evaluation/worse.py`)."""
    first_look_days: int = Field(20, ge=10)
    """Mature days before the first look."""
    look_every_days: int = Field(10, ge=1)
    """Mature days from one look to the next."""


Percent = Annotated[float, Field(gt=0, le=100)]


class DeploymentSettings(Section):
    """How a candidate becomes champion."""

    strategy: Strategy = Strategy.BLUE_GREEN
    """Of runs of daily_retraining whose form says nothing else."""
    approval: Approval = Approval.NONE
    """Whether a person must approve a deployment first, unless a run's form says otherwise. `alphaops deploy` needs no
    approval."""
    approval_h: float = Field(4.0, gt=0)
    """How long to wait for an approval, in hours. Without one nothing is deployed."""
    queue: QueuePolicy = QueuePolicy.NEWEST_WINS
    """What happens to a candidate that arrives while another one's rollout is in progress."""
    canary_steps_pct: tuple[Percent, ...] = Field((1.0, 5.0, 25.0, 50.0, 100.0), min_length=1)
    """Percentages of the clients that a canary answers, in successive steps."""
    hold_h: float = Field(24.0, ge=0)
    """How long each step of a canary lasts, in hours."""
    shadow_h: float = Field(120.0, ge=0)
    """How long a shadow lasts, in hours."""
    deadline_days: float = Field(14.0, gt=0)
    """How long a candidate may wait, and how long its rollout may take, before it is aborted."""
    evaluate_every_min: float = Field(10.0, ge=1)
    """How often the DAG monitor_champion evaluates the rules and the time limits."""
    rules: RolloutRules = RolloutRules()
    probation_days: int = Field(60, ge=0)
    """Market days after its promotion during which a champion is compared with the one that it replaced, on matured
    days, and rolled back if it is worse; 0 disables this. A candidate is compared on at most this many days."""
    quality: QualityRules = QualityRules()
    watch_h: float = Field(24.0, ge=0)
    """Hours after its promotion during which `rules` apply to a champion, compared with the one that it replaced."""

    @field_validator("canary_steps_pct", mode="before")
    @classmethod
    def _parse_steps(cls, value: object) -> object:
        return tuple(filter(None, value.split(","))) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _ends_in_time(self) -> Self:
        steps = self.canary_steps_pct
        if sorted(set(steps)) != list(steps):
            raise ValueError(f"canary_steps_pct must increase, got {list(steps)}; give each share once, in this order")
        longest = max(len(steps) * self.hold_h, self.shadow_h)
        if longest >= self.deadline_days * 24:
            raise ValueError(
                f"the steps take {longest:g} h, but the deadline is after {self.deadline_days * 24:g} h; raise "
                "deadline_days, or lower hold_h or shadow_h"
            )
        return self


class ServingSettings(Section):
    """The scoring service, and the checks that a deployment makes against it."""

    workers: int = Field(1, ge=1, le=64)
    """Processes that answer requests; with several, a process more keeps them. Where nothing else is said, limits are
    of all of them together, and each has an equal part: of connections, and of requests of each kind under way."""
    poll_s: float = Field(5.0, gt=0)
    """How often the service checks where the champion alias points, in seconds."""
    deploy_timeout_s: float = Field(120.0, gt=0)
    probe_max_abs_diff: float = Field(1e-9, ge=0)
    """Largest difference allowed between the service's scores and those computed from the artefact."""
    max_body_mb: float = Field(8.0, gt=0)
    """Largest request body (10^6 bytes); a larger one is answered with 413."""
    max_rows: int = Field(1000, ge=1)
    """Rows of features that a request may contain; more are answered with 413. The client splits larger frames."""
    max_names: int = Field(10_000, ge=1)
    """Instruments that a request may name; more are answered with 413."""
    requests_at_once: int = Field(16, ge=1)
    """Requests with features that are scored at once; one more is answered with 503 and Retry-After. The newest day's
    scores are in memory and do not wait for them."""
    large_at_once: int = Field(8, ge=1)
    """Bodies above 16 KiB that are read and scored at once; one more is answered with 503 and Retry-After."""
    cold_dates_at_once: int = Field(4, ge=1)
    """Dates not in memory that may await loading; they load one at a time. One more is answered with 503 and
    Retry-After."""
    dates_kept: int = Field(64, ge=1)
    """Dates other than the newest whose scores stay in memory, in each worker's."""
    connections: int = Field(256, ge=1)
    """Open connections. Beyond that, a new one replaces the one that has waited longest for its request."""
    header_timeout_s: float = Field(10.0, gt=0)
    """How long the request line and the headers may take, from their first byte or from the connection on."""
    body_timeout_s: float = Field(15.0, gt=0)
    """How long the body may take after that."""
    idle_timeout_s: float = Field(30.0, gt=0)
    """How long a connection may wait for its next request."""
    answer_timeout_s: float = Field(30.0, gt=0)
    """How long a client may leave an answer unread."""
    access_log: Literal["none", "errors", "all"] = "errors"
    """Which requests with a valid key are logged, as one JSON object each: none, all, or those that were refused or
    failed."""
    key_requests_per_minute: int = Field(600, ge=1)
    """Default rate limit of a new key; one more request is answered with 429 and Retry-After."""
    key_share: float = Field(0.5, gt=0, le=1)
    """Share of `requests_at_once`, `large_at_once` and `cold_dates_at_once` that one key may use."""

    def of_one_worker(self) -> "ServingSettings":
        """The same with one worker's part of what there is of places and connections, one at least."""
        divided = ("requests_at_once", "large_at_once", "cold_dates_at_once", "connections")
        return self.model_copy(update={name: max(1, getattr(self, name) // self.workers) for name in divided})


class PredictionSettings(Section):
    """The log of the scoring service's answers."""

    kept_days: int = Field(400, ge=2)
    """How long the state database keeps an answer."""
    kept_rows_days: int = Field(14, ge=2)
    """How long it keeps an answer to given features, which has scores of its own; `kept_days` if that is less."""
    alert_database_gb: float = Field(20.0, gt=0)
    """Size of the state database (10^9 bytes) above which an alert is raised."""
    max_disk_mb: float = Field(256.0, ge=16)
    """How much may accumulate below `<home>/predictions` (10^6 bytes) while the state database accepts nothing. Answers
    beyond that are not logged; they are counted and reported."""
    sync_s: float = Field(1.0, gt=0)
    """How often answers are flushed to disk, in seconds: a power failure can lose those of that time."""
    ship_s: float = Field(1.0, gt=0)
    """How often answers are written to the state database, in seconds."""


class StreamSettings(Section):
    """Live event streams (WebSockets) of one process of Airflow's API server."""

    per_user: int = Field(32, ge=1)
    """Streams that a user may have open; one more is refused with 429. A page needs one."""
    total: int = Field(600, ge=1)
    """Streams of all users; one more is refused with 503."""
    topics: int = Field(64, ge=1)
    """Topics that are followed on one stream."""
    heartbeat_s: float = Field(15.0, gt=0)
    """A stream on which nothing happens says so this often."""
    send_timeout_s: float = Field(10.0, gt=0)
    """How long a client may take to receive a message before it is disconnected."""
    idle_s: float = Field(1800.0, gt=0)
    """How long a stream may have no event before it is closed; the pages reconnect."""
    lifetime_s: float = Field(14_400.0, gt=0)
    """Maximum lifetime of a stream."""


class SharedSettings(Section):
    """Where several machines share vintages, features, trainings and MLflow's artefacts (docs/shared_stores.md)."""

    store: str = ""
    """Absolute path of a folder that all of them mount, or `s3://bucket/prefix`, whose credentials come from the
    environment. Empty: this machine shares nothing, and all is below `home`."""
    endpoint_url: str | None = Field(None, pattern=r"^https?://[^/\s@]+(/\S*)?$")
    """Address of an S3 store that is not Amazon's. None: Amazon's, or what AWS_ENDPOINT_URL says."""

    @property
    def is_bucket(self) -> bool:
        """Whether it is an object store, and not a folder."""
        return self.store.startswith("s3://")

    @field_validator("store")
    @classmethod
    def _path_or_bucket(cls, value: str) -> str:
        if not re.fullmatch(r"|/.*|s3://[a-z0-9][a-z0-9.-]+(/[\w./-]*)?", value):
            raise ValueError("give the absolute path of a folder that all machines mount, or s3://bucket/prefix")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _endpoint_of_a_bucket(self) -> Self:
        if self.endpoint_url is not None and self.store and not self.is_bucket:
            raise ValueError("endpoint_url is of an object store, but store is a folder; leave it out")
        return self


class Settings(Section):
    """All settings, and the paths below `home`."""

    home: Path
    stack: StackSettings = StackSettings()
    celery: CelerySettings = CelerySettings()
    shared: SharedSettings = SharedSettings()
    data: DataSettings = DataSettings()
    calendar: CalendarSettings = CalendarSettings()
    vintage_policy: VintagePolicySettings = VintagePolicySettings()
    synthetic: SyntheticSettings = SyntheticSettings()
    alerts: AlertSettings = AlertSettings()
    features: FeatureSettings = FeatureSettings()
    certificate: CertificateSettings = CertificateSettings()
    models: ModelSettings = ModelSettings()
    training: TrainingSettings = TrainingSettings()
    tuning: TuningSettings = TuningSettings()
    portfolio: PortfolioSettings = PortfolioSettings()
    gate: GateSettings = GateSettings()
    drift: DriftSettings = DriftSettings()
    replay: ReplaySettings = ReplaySettings()
    deployment: DeploymentSettings = DeploymentSettings()
    serving: ServingSettings = ServingSettings()
    predictions: PredictionSettings = PredictionSettings()
    stage_secrets: dict[str, tuple[Annotated[str, Field(pattern=r"^\w+$")], ...]] = {}
    """Further environment variables with secrets that a stage's process receives: maps a stage
    (`data.version_snapshot`), or your own `module:function`, to their names. `process.STAGES` lists what each stage
    receives anyway."""
    streams: StreamSettings = StreamSettings()
    mlflow_tracking_uri: str = ""
    """Default: the SQLite database below `home`. `make up` sets the address of the server."""
    mlflow_artifact_root: str = ""
    """Where MLflow keeps this project's models; a model that is stored elsewhere is not fetched. Default: the server's
    own store (`mlflow-artifacts:/`), or the folder `artifacts` beside the SQLite database. Set it if the server uses
    another location, e.g. `s3://bucket/models`."""
    state_url: str = ""
    """SQLAlchemy URL of the state database. Default: SQLite below `home`; with the profile `celery`, the PostgreSQL
    server of `celery.database_url`."""

    @cached_property
    def data_dir(self) -> Path:
        """Vintages, quarantine, staging and Qlib stores."""
        return self.home / "data"

    @cached_property
    def features_dir(self) -> Path:
        """The feature store."""
        return self.home / "features"

    @cached_property
    def training_dir(self) -> Path:
        """One folder per training, named by training key."""
        return self.home / "training"

    @cached_property
    def checkpoints_dir(self) -> Path:
        """The newest checkpoint of each unfinished training, by training key."""
        return self.home / "training_checkpoints"

    @cached_property
    def training_runs_dir(self) -> Path:
        """What the processes of a running training share, by run id."""
        return self.home / "training_runs"

    @cached_property
    def tuning_dir(self) -> Path:
        """Reports of studies by name, and the studies themselves if they are in SQLite."""
        return self.home / "tuning"

    @cached_property
    def replays_dir(self) -> Path:
        """Scratch folders of replays; empty while none runs."""
        return self.home / "replays"

    @cached_property
    def reports_dir(self) -> Path:
        """Drift and comparison reports."""
        return self.home / "reports"

    @cached_property
    def scores_dir(self) -> Path:
        """Daily score files."""
        return self.home / "scores"

    @cached_property
    def predictions_dir(self) -> Path:
        """Answers of the scoring service that are not in the state database yet, one folder per process."""
        return self.home / "predictions"

    @cached_property
    def secrets_dir(self) -> Path:
        """Generated secrets, with mode 0700."""
        return self.home / "secrets"

    @cached_property
    def run_dir(self) -> Path:
        """Process table and logs of the stack."""
        return self.home / "run"

    @property
    def stage_socket(self) -> Path:
        """Socket of the stage server."""
        return self.run_dir / "stages.sock"

    @cached_property
    def registry_uri(self) -> str:
        """MLflow's address: the configured one, or the SQLite database below `home`."""
        return self.mlflow_tracking_uri or f"sqlite:///{self.home / 'mlflow' / 'mlflow.db'}"

    @cached_property
    def state_database(self) -> str:
        """SQLAlchemy URL of the state database."""
        if not self.state_url and self.stack.profile == "celery":
            return self.postgresql_database("state")
        return self.state_url or f"sqlite:///{self.home / 'state' / 'state.db'}"

    def postgresql_database(self, name: str) -> str:
        """SQLAlchemy URL of one of the profile `celery`'s databases."""
        server = self.celery.database_url.replace("postgresql://", "postgresql+psycopg2://", 1).rstrip("/")
        return f"{server}/{self.celery.database_prefix}_{name}?{_POSTGRESQL_LINK}"

    @cached_property
    def scoring_url(self) -> str:
        """Base address of the scoring service."""
        return f"http://{self.stack.host}:{self.stack.scoring_port}"

    @cached_property
    def airflow_url(self) -> str:
        """Base address at which this machine reaches Airflow's API server."""
        return f"http://{self.stack.local_host}:{self.stack.airflow_port}"

    @cached_property
    def mlflow_server(self) -> str:
        """Base address of the MLflow server: the configured one, or the stack's own."""
        configured = self.mlflow_tracking_uri or ""
        return (
            configured if configured.startswith("http") else f"http://{self.stack.local_host}:{self.stack.mlflow_port}"
        )

    def training_folder(self, training_key: str) -> Path:
        """The folder of a training; StoreError if the key is malformed."""
        return self.training_dir / plain_name(training_key, "training key")

    def relative(self, path: Path) -> str:
        """`path` relative to `home`, the form in which tasks exchange paths."""
        return path.relative_to(self.home).as_posix()


def check_segments(train: DateRange, valid: DateRange, test: DateRange) -> None:
    """Raise ValueError unless the segments are non-empty and follow one another without overlap."""
    for name, (first, last) in (("train", train), ("valid", valid), ("test", test)):
        if first > last:
            raise ValueError(f"{name}: first day {first} is after last day {last}; swap them")
    for (earlier, a), (later, b) in (
        (("train", train), ("valid", valid)),
        (("valid", valid), ("test", test)),
    ):
        if a[1] >= b[0]:
            raise ValueError(f"{later} starts {b[0]}, {earlier} ends {a[1]}: they overlap; start {later} later")


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Read, merge and check all settings.

    Raises
    ------
    ConfigError
        A file is not a mapping, a key is unknown, or a value is invalid. The message names each key.
    """
    environ = os.environ if environ is None else environ
    home = Path(environ.get("MLOPS_HOME", PROJECT / "var")).expanduser().resolve()
    merged: dict[str, Any] = {}
    for path in (PROJECT / "include" / "config" / "settings.yaml", home / "settings.yaml"):
        if path.is_file():
            merge(merged, read_settings_file(path))
    merge(merged, _from_environment(environ))
    try:
        return Settings(home=home, **merged)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}{_given(e)}" for e in error.errors()]
        raise ConfigError(
            "bad settings; correct include/config/settings.yaml, settings.yaml in MLOPS_HOME or the MLOPS_* variable:"
            "\n  " + "\n  ".join(lines)
        ) from None


def _given(error: Mapping[str, Any]) -> str:
    """The bad value, in words. Empty for an unknown setting, whose value may be a secret under a mistyped name."""
    value = error["input"]
    if error["type"] == "extra_forbidden" or not isinstance(value, str | int | float):
        return ""
    return f" (got {excerpt(value) if isinstance(value, str) else value})"


def merge(into: dict[str, Any], new: Mapping[str, Any]) -> None:
    """Merge nested mappings in place; values of `new` win."""
    for key, value in new.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value


def read_settings_file(path: Path) -> dict[str, Any]:
    """The content of a settings file, unchecked.

    Raises
    ------
    ConfigError
        The file is not a YAML mapping. The message names the file, the line and the remedy.
    """
    try:
        content = deepcopy(_parsed(read_yaml_text(path)))
    except (ValueError, yaml.YAMLError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path}: cannot be read as YAML: {yaml_fault(error)}; correct the file") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a mapping of sections, got {type(content).__name__}")
    return content


@lru_cache(maxsize=16)
def _parsed(text: str) -> Any:
    """What a file's text says, for the caller to copy: services and loops read the same settings again and again."""
    return yaml.safe_load(text)


WITHHELD = "MLOPS_WITHHELD"
"""Space-separated names of the variables that were withheld from a stage's process (`secret_variables.py`)."""

_NOT_SETTINGS = {
    *("MLOPS_HOME", "MLOPS_SCORING_TOKEN", "MLOPS_STACK_ID", WITHHELD),
    *("MLOPS_SIGNING_KEY", "MLOPS_VERIFYING_KEYS"),
}


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    # A withheld setting must fail rather than fall back to its default, which could be another database.
    withheld = {name: f"withheld from this stage: {name}" for name in environ.get(WITHHELD, "").split()}
    merged: dict[str, Any] = {}
    for name, value in {**environ, **withheld}.items():
        if not name.startswith(ENV_PREFIX) or name in _NOT_SETTINGS:
            continue
        section, _, key = name.removeprefix(ENV_PREFIX).lower().partition("__")
        if key:
            merged.setdefault(section, {})[key] = value
        else:
            merged[section] = value
    return merged
