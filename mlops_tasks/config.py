"""Typed settings, checked on construction.

Sources, the later one wins: `include/config/settings.yaml`, `<home>/settings.yaml`, the environment
(`MLOPS_<SECTION>__<KEY>`). `MLOPS_HOME` names the folder of all run-time state (default: `var/` of the project).
"""

import os
import re
from collections.abc import Mapping
from datetime import date, datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from mlops_tasks.entry_files import read_yaml_text, yaml_fault
from mlops_tasks.errors import ConfigError, excerpt
from mlops_tasks.files import plain_name
from mlops_tasks.states import QueuePolicy, Strategy

PROJECT = Path(__file__).resolve().parents[1]
ENV_PREFIX = "MLOPS_"

SYNTHETIC = "synthetic"
"""The source that is there without any file: a seeded market."""

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
    login: Literal["simple", "fab"] = "simple"
    """Who may log in to Airflow. `simple`: one admin, for one person. `fab`: named accounts, each with a role
    (docs/users.md)."""
    up_timeout_s: float = Field(5400, gt=0)
    """How long `make up` waits for the chain, in seconds."""
    retry_delay_s: float = Field(30, ge=0)
    """Pause before a failed task is tried again, in seconds."""
    allow_root: bool = False
    """Let a container's stack run as root."""

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


class DownloadSettings(Section):
    """How a network source asks its vendor."""

    concurrency: int = Field(4, ge=1, le=64)
    """Requests under way at once."""
    requests_per_s: float = Field(5.0, gt=0)
    attempts: int = Field(6, ge=1)
    """Tries of one request, the first included; a pause that grows, with jitter, lies between them."""
    backoff_s: float = Field(1.0, ge=0)
    """First pause; each further one is twice as long, up to `max_backoff_s`. A vendor's Retry-After is waited out."""
    max_backoff_s: float = Field(60.0, ge=0)
    timeout_s: float = Field(30.0, gt=0)
    max_failed_share: float = Field(0.02, ge=0, le=1)
    """With a larger share of instruments that could not be fetched the whole reading fails."""


EpochUnit = Literal["seconds", "milliseconds", "microseconds", "nanoseconds"]


class ColumnsOfSource(Section):
    """What columns of a file or a database mean."""

    columns: dict[str, str] = {}
    """Standard name to the source's own column name, in place of the aliases in include/config/sources.yaml."""
    prices: Literal["adjusted", "raw"] | None = None
    """What open, high, low and close are beside a factor. None: as `data.prices` says."""
    adjusted: Literal["factor", "ignore"] | None = None
    """What a column with an adjusted close is for. None: as `data.adjusted` says."""
    factor: Literal["from_preclose"] | None = None
    """`from_preclose`: where there is no factor, it is made of the close before as the exchange adjusted it for the
    action of the day. None: the factor's own column, or none."""


class TableSource(ColumnsOfSource):
    """A parquet or CSV file, or a folder of them, and how they are written."""

    kind: Literal["table"]
    path: str
    exclude: tuple[str, ...] = ()
    """Files of the folder that hold no bars: names, or paths below the folder, with `*` and `?`."""
    instrument_from: Literal["column", "file_name"] = "column"
    """`file_name`: each file holds one instrument and bears its name."""
    instrument_pattern: str | None = None
    """A regular expression with one group that is the instrument, for the whole name of a file without its suffix:
    `daily_(.+)`. None: the whole name."""
    encoding: str = "utf-8"
    """Of CSV files: utf-8, gb18030, cp1252, utf-16, or another one that Python knows."""
    separator: str = Field(",", min_length=1, max_length=1)
    """Between the cells of CSV files; a tab is "\\t"."""
    decimal: Literal[".", ","] = "."
    """The decimal sign of numbers that are text."""
    thousands: Literal[",", ".", "'", "\u2019", "_", " ", "\u00a0", "\u202f"] | None = None
    """What stands between groups of three digits of numbers that are text."""
    date_format: str | None = None
    """Form of dates that are text, in Python's directives: %d/%m/%Y. None: year first (2018-02-07, 20180207)."""
    epoch_unit: EpochUnit | None = None
    """What dates that are whole numbers count since 1970-01-01 in UTC. None: recognised by their size."""
    timezone: str | None = None
    """Whose day such numbers, and moments that say their own zone, belong to: Asia/Shanghai. None: UTC's, or that of
    the zone that they say."""
    header_rows: int | None = Field(None, ge=1, le=20)
    """Lines of CSV files before the first bar. None: one, or the three that yfinance writes."""

    @field_validator("instrument_pattern")
    @classmethod
    def _one_group(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                groups = re.compile(value).groups
            except re.error as error:
                raise ValueError(f"it is no regular expression: {error}") from None
            if groups != 1:
                raise ValueError(f"it has {groups} groups; put the instrument, and nothing else, into ( )")
        return value

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str) -> str:
        try:
            b"a".decode(value)
        except UnicodeError:  # a single byte is no text in UTF-16
            return value
        except (LookupError, ValueError):
            raise ValueError("it is no encoding of text; use utf-8, gb18030, big5, cp1252, utf-16, ...") from None
        return value

    @field_validator("separator")
    @classmethod
    def _separates(cls, value: str) -> str:
        if value.isalnum() or value in '"\r\n.-+' or not value.isascii():
            raise ValueError('it cannot stand between cells; use "," or ";" or "|" or "\\t"')
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
                raise ValueError("it is no time zone; use a name such as America/New_York or Asia/Shanghai") from None
        return value

    @model_validator(mode="after")
    def _signs_differ(self) -> Self:
        if self.thousands == self.decimal:
            raise ValueError(f"decimal and thousands are both {self.decimal!r}; give two signs")
        if self.instrument_pattern is not None and self.instrument_from != "file_name":
            raise ValueError("instrument_pattern needs instrument_from: file_name")
        return self


def check_date_format(form: str) -> None:
    """Raise ValueError unless a form of `datetime.strptime` gives a day back."""
    for day in (date(2018, 2, 7), date(1999, 12, 31)):
        try:
            read = datetime.strptime(day.strftime(form), form).date()
        except (ValueError, re.error):
            read = None
        if read != day:
            raise ValueError("it does not name a day; use %Y, %m and %d as in %d/%m/%Y")


class PostgresqlSource(ColumnsOfSource):
    """A table, view or query of a PostgreSQL database."""

    kind: Literal["postgresql"]
    dsn_variable: str = Field("BARS_DSN", pattern=r"^\w+$")
    """The environment variable that holds the connection string: it may hold a password, so it is no setting (and its
    name does not begin with MLOPS_)."""
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
            raise ValueError("give table or query, one of them")
        return self


class VendorSource(Section):
    """A vendor that is asked for one instrument at a time."""

    kind: Literal["yahoo", "akshare", "baostock"]
    instruments: tuple[str, ...] | str = ()
    """Names in the project's spelling (AAPL, SH600000), or a file with one a line, or a membership file; empty: the
    names in `data.universe`."""
    start: date = date(2010, 1, 1)
    download: DownloadSettings = DownloadSettings()


SourceSpec = Annotated[TableSource | PostgresqlSource | VendorSource, Field(discriminator="kind")]


class DataSettings(Section):
    """Where bars come from and how many bad rows a vintage may hold."""

    source: str = "synthetic"
    """`synthetic`, a name of `sources`, or a parquet or CSV file, or a folder of them."""
    sources: dict[str, SourceSpec] = {}
    """Named sources: databases, vendors, files with their own column names."""
    universe: str | None = None
    """Point-in-time membership file in Qlib's format (instrument, first day, last day); none: every instrument."""
    universe_date_format: str | None = None
    """Form of its dates, in Python's directives: %d/%m/%Y. None: year first (2018-02-07)."""
    allowed_folders: tuple[str, ...] | None = None
    """Folders below which a form may name a source or a universe, besides what the settings name themselves; none: the
    folders that the configured source and universe lie in, unless the whole operation does too."""
    prices: Literal["adjusted", "raw"] = "adjusted"
    """What the source's open, high, low and close are when it has a factor (adjusted / raw) column."""
    adjusted: Literal["factor", "ignore"] | None = None
    """What an adjusted close beside prices without a factor is for. `factor`: adjusted / close is the factor, and the
    prices are raw. `ignore`: nothing, so that dividends stay in the returns. None: a source that has one is refused."""
    max_rejected_share: float = Field(0.005, ge=0, le=1)
    """A vintage with a larger share of rows that break a rule about the row is rejected as a whole; those of a single
    day always may."""
    max_rejected_instruments_share: float = Field(0.05, ge=0, le=1)
    """The same for the share of instruments that are quarantined whole; a single one always may be."""
    suite_pages: bool = True
    """Whether Great Expectations renders a page of each suite into the data docs, in a task of its own."""
    on_sync: tuple[Annotated[str, Field(pattern=r"^[\w.]+:[\w.]+$")], ...] = ()
    """Functions `module:function` that are told of each data version that comes into use; `data/callbacks.py` says
    how."""

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
    """Trading calendars, by their names in exchange_calendars (XNYS, XSHG, 24/7, ...)."""

    name: str = "auto"
    """Calendar of the bars; `auto`: the best fitting one for each instrument."""
    schedule: str = "XNYS"
    """Calendar that the sync's schedule follows."""
    delay_min: float = Field(90.0, ge=0)
    """How long after a session's close its bars are taken to be complete, in minutes."""


VintageDecision = Literal["accept", "warn", "block"]


class VintagePolicySettings(Section):
    """What a change of history between two vintages leads to; `data/revisions/policy.py` says how each is judged.

    A change beyond a limit blocks the vintage, a smaller one warns, unless the limit says otherwise.
    """

    max_restated_rows_share: float = Field(0.01, ge=0, le=1)
    """Rows with another price or volume, of the common rows."""
    max_price_change: float = Field(0.5, gt=0)
    """Largest relative change of a restated price."""
    max_readjusted_instruments_share: float = Field(0.2, ge=0, le=1)
    """Instruments whose history was re-adjusted by one constant ratio: accepted up to here, a warning beyond."""
    max_refactored_instruments_share: float = Field(0.01, ge=0, le=1)
    """Instruments whose factors changed in any other way."""
    max_scaled_instruments_share: float = Field(0.1, ge=0, le=1)
    """Instruments of which a whole field is ten, a hundred, ... times what it was: other units."""
    max_jumping_instruments_share: float = Field(0.01, ge=0, le=1)
    """Instruments with a move beyond 40% where the vintage before had none."""
    max_removed_rows_share: float = Field(0.005, ge=0, le=1)
    """Rows that are gone, of all rows of the vintage before (instruments that vanished not counted)."""
    max_removed_instruments_share: float = Field(0.02, ge=0, le=1)
    """Instruments that are gone, of all instruments of the vintage before."""
    min_coverage: float = Field(0.9, ge=0, le=1)
    """Least share of the instruments of the old last day that have a bar on a new day, where it is their session."""
    earlier_end: VintageDecision = "block"
    """The last date goes back."""
    calendar_changes: VintageDecision = "block"
    """A day of the past became a trading day, or is none any more."""
    universe_changes: VintageDecision = "warn"
    """Membership of the past changed."""


class SyntheticSettings(Section):
    """The synthetic market; `data/sources/synthetic.py` says what is planted in it."""

    instruments: int = Field(60, ge=10)
    start: date = date(2022, 1, 3)
    days: int = Field(700, ge=30)
    """Trading days from `start` on; more days extend the same market."""
    seed: int = Field(7, ge=0)
    signal_strength: float = Field(0.08, ge=0, lt=1)
    """Population correlation of the planted signal with the return that it foretells."""


Address = Annotated[str, Field(pattern=r"^[^@\s<>,;]+@[^@\s<>,;]+$")]
"""Of a mailbox, without a name beside it."""


class EmailSettings(Section):
    """A mail server, and who is written to. The password is a secret of its own (docs/alerts.md)."""

    host: str = Field(min_length=1)
    port: int = Field(587, ge=1, le=65535)
    security: Literal["starttls", "tls", "none"] = "starttls"
    """`starttls`: encrypted from the second command on; `tls`: from the first byte (port 465); `none`: not at all, and
    then without a user."""
    ca_file: Path | None = None
    """Certificates that the server's is checked against; none: the system's."""
    user: str | None = None
    """Who logs in; none: nobody does."""
    sender: Address
    to: tuple[Address, ...] = Field(min_length=1)

    @field_validator("to", mode="before")
    @classmethod
    def _parse_addresses(cls, value: object) -> object:
        return _addresses(value)

    @model_validator(mode="after")
    def _no_open_password(self) -> Self:
        if self.security == "none" and self.user is not None:
            raise ValueError("a user's password would go over the wire as it is; use security: starttls or tls")
        return self


class AlertSettings(Section):
    """Who is told when something needs a person, and how long a delay may last before it does.

    Which alerts there are, how grave each is and whom it is told is in include/config/alerts.yaml and
    `<home>/alerts.yaml`.
    """

    webhook_url: SecretStr | None = None
    """Address that is sent each alert as JSON (`text`, `kind`, `subject`, `message`), e.g. of a chat channel. It may
    hold a token: set it in the environment (MLOPS_ALERTS__WEBHOOK_URL)."""
    email: EmailSettings | None = None
    """A mail server that is written to directly."""
    airflow_connection: str | None = Field(None, pattern=r"^[\w.-]+$")
    """Id of Airflow's own connection to a mail server (`smtp_default`), through which its provider writes."""
    airflow_to: tuple[Address, ...] = ()
    """Whom it writes to."""
    interval_s: float = Field(30.0, gt=0)
    """How often the scoring service looks what is wrong and what is still to be told."""
    timeout_s: float = Field(10.0, gt=0)
    """How long a receiver may take for an answer."""
    stale_after_s: float = Field(3600, ge=0)
    """How long the scoring service may have no champion, or data that end before those of the vintage in use."""
    scores_due_s: float = Field(14_400, ge=0)
    """How long the champion's scores of the newest date may take from the publication of its vintage on."""

    @field_validator("airflow_to", mode="before")
    @classmethod
    def _parse_addresses(cls, value: object) -> object:
        return _addresses(value)

    @model_validator(mode="after")
    def _somebody_is_written_to(self) -> Self:
        if self.airflow_connection is not None and not self.airflow_to:
            raise ValueError("airflow_connection needs airflow_to: whom it writes to")
        return self


def _addresses(value: object) -> object:
    """A list that is one text in the environment."""
    return tuple(filter(None, value.split(","))) if isinstance(value, str) else value


class FeatureSettings(Section):
    """Which feature set the chain computes, and how long the store keeps what nothing needs."""

    feature_set: str = "alpha158"
    """A built-in set, or one of include/config/feature_sets.yaml or `<home>/feature_sets.yaml`."""
    retention_days: int = Field(30, ge=0)
    """Feature versions younger than this stay in any case; older ones while a registered model needs them."""


class CertificateSettings(Section):
    """How the leak certificate is made."""

    cuts: int = Field(3, ge=1, le=20)
    """Dates at which the data is cut off and everything is computed again."""


UnpicklingFamily = Literal["qlib", "sklearn"]


class ModelSettings(Section):
    """Models whose files hold code that runs when they are loaded."""

    unpickling_families: tuple[UnpicklingFamily, ...] = ()
    """Families whose files may run code when they are loaded. qlib: always, as they are pickles. sklearn: where an
    estimator is made of other types than scikit-learn's plain ones. Such a model runs in a process of its own that has
    no secret, reads no file but the libraries and its own, and reaches no network. Empty: none is loaded."""
    isolated_memory_mb: float = Field(4000, ge=500)
    """Memory (10^6 bytes) that such a process may take."""
    largest_artefact_mb: float = Field(4000, gt=0)
    """Of a model that is fetched from MLflow (10^6 bytes); a larger one is not fetched."""

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
    """Of one training, the time in which it waited for its turn or was paused not counted."""
    wait_limit_s: float = Field(86_400, gt=0)
    """How long a task that trains may wait and be paused on top of that."""
    cancel_grace_s: float = Field(30, ge=0)
    """How long a cancelled training may take to end by itself before its processes are killed, in seconds."""
    sample_s: float = Field(5, ge=0.5)
    """How often what a training uses is measured, in seconds."""
    memory_limit_mb: float | None = Field(None, gt=0)
    """Memory (10^6 bytes) of all trainings of this machine together; none: what the machine, or the container, has
    available, but for `memory_reserve_mb`."""
    memory_reserve_mb: float = Field(500, ge=0)
    slots: int | None = Field(None, ge=1)
    """Threads of all trainings of this machine together; none: as many as it has cores."""
    owner_weights: dict[str, Annotated[float, Field(gt=0)]] = {}
    """Share of an owner in the machine while others wait too, relative to theirs; 1 where it is not given."""

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
    """Configurations that are tried in all, by all workers."""
    workers: int = Field(2, ge=1, le=64)
    """Workers that share a study in PostgreSQL; in SQLite there is one."""
    storage_url: str = ""
    """SQLAlchemy address of a database for studies alone. Default: a schema of its own beside the state database where
    that is PostgreSQL, else SQLite below `home`."""
    time_limit_s: float = Field(86_400, gt=0)
    """Of one worker's task."""

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
    """Least cost of one order, in units of the account's currency."""
    account: float = Field(1e8, gt=0)
    limit_threshold: Literal["market"] | Annotated[float, Field(gt=0)] | None = "market"
    """No buying at a daily move of this or more, no selling at minus this or less. `market`: what the exchange of each
    instrument's calendar has (data/exchanges/price_limits.py: 9.5% or the board's own for A-shares, none in New York);
    a number: that for all (0.095); none: every close can be traded."""
    delisting_return: float = Field(-0.3, ge=-1)
    """What is lost, or won, on the last close of a held instrument whose bars end before the vintage does; paid out the
    market day after. -0.3: the mean of delistings for bad performance in New York (Shumway, The Delisting Bias in CRSP
    Data, Journal of Finance 52, 1997), so a merger, which pays about the last close (0), is judged too severely: a
    backtest should not flatter where bars do not say why they end."""

    def holding(self, topk: int | None, n_drop: int | None) -> "PortfolioSettings":
        """The same with other numbers of names held and replaced a day; None: as here."""
        given = {"topk": topk, "n_drop": n_drop}
        return self.model_copy(update={name: number for name, number in given.items() if number is not None})


class GateSettings(Section):
    """When a challenger replaces the champion; see `evaluation/gate.py`."""

    min_gain: float = Field(0.0, ge=0)
    """Least gain of mean daily rank IC."""
    alpha: float = Field(0.05, gt=0, lt=1)
    """One-sided error budget of a year of 252 market days: the probability of at least one false promotion, spent in
    equal parts over the looks of the year. With `looks: daily` the level of each look."""
    look_every_days: int = Field(21, ge=1)
    """Market days from one comparison with the champion to the next; also the least age of one that is refreshed."""
    looks: Literal["planned", "daily"] = "planned"
    """`planned`: one every `look_every_days`. `daily`: every training is compared, each at the level `alpha`, and
    nothing bounds the errors of the year. That finds better models sooner, and costs, among equal models and at 0.05,
    about one false promotion a year, and at least one in 70% of the years (docs/gate.md)."""
    non_inferiority_margin: float = Field(0.005, ge=0)
    """Largest loss of mean daily rank IC with which a model that is trained on newer bars may replace the champion."""
    min_coverage: float = Field(0.95, gt=0, le=1)
    """Least share of the universe's rows in the test segment with a finite score."""
    min_test_days: int = Field(20, ge=2)
    min_skill_days: int = Field(120, ge=2)
    """Least number of test days on which a first champion proves its skill; before, it serves as `provisional`."""
    max_constant_days_share: float = Field(0.05, ge=0, le=1)
    """Largest share of test days on which all scores are the same."""
    deflated_confidence: float = Field(0.95, gt=0, lt=1)
    """Least deflated Sharpe ratio, a probability, of a challenger that was chosen among the trials of a search."""
    max_overfitting_probability: float = Field(0.5, gt=0, le=1)
    """Largest probability of backtest overfitting of that search, and of a loss of its best trial."""


class DriftSettings(Section):
    """What the drift report compares, and how often it may be wrong."""

    current_days: int = Field(20, ge=1)
    """Trading days of a window."""
    error_rate: float = Field(0.03, gt=0, lt=1)
    """Share of quiet days on which it may alert."""


class RolloutRules(Section):
    """What rejects a candidate while its rollout is under way; None: it is not looked at."""

    max_error_rate: float | None = Field(0.01, ge=0, le=1)
    """Share of the candidate's requests that the champion had to answer in its place."""
    max_latency_ratio: float | None = Field(3.0, gt=0)
    """99th percentile of the candidate's time to an answer, by the champion's."""
    min_answers: int = Field(100, ge=1)
    """Of each side, below which error rate and latency are not judged."""
    min_coverage: float | None = Field(0.95, ge=0, le=1)
    """Least share of the instruments with the champion's score that have the candidate's."""
    min_rank_correlation: float | None = Field(0.0, ge=-1, le=1)
    """Of the candidate's scores with the champion's of the same day, Spearman's."""
    max_psi: float | None = Field(1.0, gt=0)
    """Population stability index of the candidate's standardised scores against the champion's of the same day, beyond
    what chance gives."""
    max_turnover: float | None = Field(None, ge=0, le=1)
    """Share of the names held (`portfolio.topk`, a fifth of all where these are fewer than five times that) that a
    switch from the champion would replace on one day."""


Percent = Annotated[float, Field(gt=0, le=100)]


class DeploymentSettings(Section):
    """How a candidate becomes champion."""

    strategy: Strategy = Strategy.BLUE_GREEN
    """Of runs of daily_retraining whose form says nothing else."""
    queue: QueuePolicy = QueuePolicy.NEWEST_WINS
    """What becomes of a candidate that comes while another one's rollout is under way."""
    canary_steps_pct: tuple[Percent, ...] = Field((1.0, 5.0, 25.0, 50.0, 100.0), min_length=1)
    """Shares of the clients that a canary answers, one after the other."""
    hold_h: float = Field(24.0, ge=0)
    """How long each step of a canary lasts, in hours."""
    shadow_h: float = Field(120.0, ge=0)
    """How long a shadow lasts, in hours."""
    deadline_days: float = Field(14.0, gt=0)
    """For so long a candidate may wait, and for so long its rollout may take; then it is aborted."""
    evaluate_every_min: float = Field(10.0, ge=1)
    """How often the DAG monitor_champion looks at rules and clock."""
    rules: RolloutRules = RolloutRules()

    @field_validator("canary_steps_pct", mode="before")
    @classmethod
    def _parse_steps(cls, value: object) -> object:
        return tuple(filter(None, value.split(","))) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _ends_in_time(self) -> Self:
        steps = self.canary_steps_pct
        if sorted(set(steps)) != list(steps):
            raise ValueError(f"canary_steps_pct must grow, got {list(steps)}; give each share once, the smallest first")
        longest = max(len(steps) * self.hold_h, self.shadow_h)
        if longest >= self.deadline_days * 24:
            raise ValueError(
                f"the steps take {longest:g} h and the deadline is after {self.deadline_days * 24:g} h; raise "
                "deadline_days, or lower hold_h or shadow_h"
            )
        return self


class ServingSettings(Section):
    """The scoring service and the deployment checks against it."""

    workers: int = Field(1, ge=1, le=64)
    """Processes that answer requests; with several, a process more keeps them. Where nothing else is said, limits are
    of all of them together, and each has an equal part: of connections, and of requests of each kind under way."""
    poll_s: float = Field(5.0, gt=0)
    """How often the service looks where the champion alias points, in seconds."""
    deploy_timeout_s: float = Field(120.0, gt=0)
    probe_max_abs_diff: float = Field(1e-9, ge=0)
    """Largest difference allowed between the service's scores and those computed from the artefact."""
    max_body_mb: float = Field(8.0, gt=0)
    """Of a request's body (10^6 bytes); more is a 413."""
    max_rows: int = Field(1000, ge=1)
    """Rows of features that a request may give; more is a 413. The client sends larger frames in parts."""
    max_names: int = Field(10_000, ge=1)
    """Instruments that a request may name; more is a 413."""
    requests_at_once: int = Field(16, ge=1)
    """Requests that give features and are scored at once; one more is a 503 with Retry-After. The newest day's scores
    are in memory and wait for none of them."""
    large_at_once: int = Field(8, ge=1)
    """Bodies above 16 KiB that are taken in and scored at once; one more is a 503 with Retry-After."""
    cold_dates_at_once: int = Field(4, ge=1)
    """Dates that are not in memory and are being loaded, one after the other; one more is a 503 with Retry-After."""
    dates_kept: int = Field(64, ge=1)
    """Dates other than the newest whose scores stay in memory, in each worker's."""
    connections: int = Field(256, ge=1)
    """Open connections. A new one beyond that takes the place of the one that has waited longest for its request."""
    header_timeout_s: float = Field(10.0, gt=0)
    """How long the line and the headers of a request may take from its first byte, or from the connection, on."""
    body_timeout_s: float = Field(15.0, gt=0)
    """How long the body may take after that."""
    idle_timeout_s: float = Field(30.0, gt=0)
    """How long a connection may wait for its next request."""
    answer_timeout_s: float = Field(30.0, gt=0)
    """How long a client may leave an answer unread."""
    access_log: Literal["none", "errors", "all"] = "errors"
    """Which requests with a valid key the service's log has, a JSON object each: none, all, or those that were refused
    or failed."""
    key_requests_per_minute: int = Field(600, ge=1)
    """Of a new key, where nothing else is said; one more is a 429 with Retry-After."""
    key_share: float = Field(0.5, gt=0, le=1)
    """Share of the places of `requests_at_once`, `large_at_once` and `cold_dates_at_once` that one key may take."""

    def of_one_worker(self) -> "ServingSettings":
        """The same with one worker's part of what there is of places and connections, one at least."""
        divided = ("requests_at_once", "large_at_once", "cold_dates_at_once", "connections")
        return self.model_copy(update={name: max(1, getattr(self, name) // self.workers) for name in divided})


class PredictionSettings(Section):
    """The log of what the scoring service has answered."""

    kept_days: int = Field(400, ge=2)
    """How long the state database keeps an answer."""
    kept_rows_days: int = Field(14, ge=2)
    """How long it keeps an answer about given features, which has scores of its own; `kept_days` where that is less."""
    alert_database_gb: float = Field(20.0, gt=0)
    """Above so many 10^9 bytes of the state database people are told."""
    max_disk_mb: float = Field(256.0, ge=16)
    """What may lie below `<home>/predictions` (10^6 bytes) while the state database takes nothing; what is answered
    beyond that is not logged, counted and told."""
    sync_s: float = Field(1.0, gt=0)
    """How often answers are brought to the disk: so many seconds of them a power failure may cost."""
    ship_s: float = Field(1.0, gt=0)
    """How often answers are brought to the state database."""


class StreamSettings(Section):
    """Live event streams (WebSockets) of one process of Airflow's API server."""

    per_user: int = Field(16, ge=1)
    """Streams that a user may have open; one more is refused with 429."""
    total: int = Field(128, ge=1)
    """Streams of all users; one more is refused with 503."""
    send_timeout_s: float = Field(10.0, gt=0)
    """How long a reader may take for a message before it is cut off."""
    idle_s: float = Field(1800.0, gt=0)
    """How long nothing may happen in a run before its streams are ended; the pages connect again."""
    lifetime_s: float = Field(14_400.0, gt=0)
    """How long a stream may last in all."""


class Settings(Section):
    """All settings, and the folders that follow from `home`."""

    home: Path
    stack: StackSettings = StackSettings()
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
    deployment: DeploymentSettings = DeploymentSettings()
    serving: ServingSettings = ServingSettings()
    predictions: PredictionSettings = PredictionSettings()
    stage_secrets: dict[str, tuple[Annotated[str, Field(pattern=r"^\w+$")], ...]] = {}
    """Further environment variables with secrets that a stage's process is given: stage (`data.version_snapshot`), or
    `module:function` of your own, to their names. What else a stage is given stands in `process.STAGES`."""
    streams: StreamSettings = StreamSettings()
    mlflow_tracking_uri: str = ""
    """Default: the SQLite database below `home`. `make up` sets the server's address."""
    mlflow_artifact_root: str = ""
    """Where MLflow keeps the models of this project; one that it stores elsewhere is not fetched. Default: the server's
    own store (`mlflow-artifacts:/`), or the folder `artifacts` beside the SQLite database. Name it where the server
    hands out another address, e.g. `s3://bucket/models`."""
    state_url: str = ""
    """SQLAlchemy address of the state database; default: SQLite below `home`."""

    @cached_property
    def data_dir(self) -> Path:
        """Vintages, quarantine, staging, Qlib stores."""
        return self.home / "data"

    @cached_property
    def features_dir(self) -> Path:
        """The feature store."""
        return self.home / "features"

    @cached_property
    def training_dir(self) -> Path:
        """One folder per training, by training key."""
        return self.home / "training"

    @cached_property
    def checkpoints_dir(self) -> Path:
        """Newest checkpoint of each unfinished training, by training key."""
        return self.home / "training_checkpoints"

    @cached_property
    def training_runs_dir(self) -> Path:
        """What the processes of a training run under way share, by run id."""
        return self.home / "training_runs"

    @cached_property
    def tuning_dir(self) -> Path:
        """Reports of studies by name, and the studies themselves where they are in SQLite."""
        return self.home / "tuning"

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
        """What the scoring service has answered and the state database does not have yet, a folder a process."""
        return self.home / "predictions"

    @cached_property
    def secrets_dir(self) -> Path:
        """Generated secrets, mode 0700."""
        return self.home / "secrets"

    @cached_property
    def run_dir(self) -> Path:
        """Process table and logs of the stack."""
        return self.home / "run"

    @property
    def stage_socket(self) -> Path:
        """Of the stage server."""
        return self.run_dir / "stages.sock"

    @cached_property
    def registry_uri(self) -> str:
        """Where MLflow is: the configured address, or the SQLite database below `home`."""
        return self.mlflow_tracking_uri or f"sqlite:///{self.home / 'mlflow' / 'mlflow.db'}"

    @cached_property
    def state_database(self) -> str:
        """SQLAlchemy address of the state database."""
        return self.state_url or f"sqlite:///{self.home / 'state' / 'state.db'}"

    @cached_property
    def scoring_url(self) -> str:
        """Base address of the scoring service."""
        return f"http://{self.stack.host}:{self.stack.scoring_port}"

    @cached_property
    def airflow_url(self) -> str:
        """Base address of Airflow's API server, as this machine reaches it."""
        return f"http://{self.stack.local_host}:{self.stack.airflow_port}"

    @cached_property
    def mlflow_server(self) -> str:
        """Base address of the MLflow server: the configured one, or the stack's own."""
        configured = self.mlflow_tracking_uri or ""
        return (
            configured if configured.startswith("http") else f"http://{self.stack.local_host}:{self.stack.mlflow_port}"
        )

    def training_folder(self, training_key: str) -> Path:
        """The folder of a training; StoreError where the key is none."""
        return self.training_dir / plain_name(training_key, "training key")

    def relative(self, path: Path) -> str:
        """`path` relative to `home`, as tasks exchange it."""
        return path.relative_to(self.home).as_posix()


def check_segments(train: DateRange, valid: DateRange, test: DateRange) -> None:
    """Raise ValueError unless each segment is non-empty and they follow one another without overlap."""
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
        A file is no mapping, a key is unknown, or a value is out of range; names the key and its source.
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
    """The value that a setting cannot have; not that of an unknown one, which may be a secret under a mistyped name."""
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
    """What a settings file says, not checked yet.

    Raises
    ------
    ConfigError
        It is no YAML mapping; names the file, the line and the remedy.
    """
    try:
        content = yaml.safe_load(read_yaml_text(path))
    except (ValueError, yaml.YAMLError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path}: cannot be read as YAML: {yaml_fault(error)}; correct the file") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a mapping of sections, got {type(content).__name__}")
    return content


WITHHELD = "MLOPS_WITHHELD"
"""Names of the variables, with blanks between, that a stage's process was not given (`secret_variables.py`)."""

_NOT_SETTINGS = {
    *("MLOPS_HOME", "MLOPS_SCORING_TOKEN", "MLOPS_STACK_ID", WITHHELD),
    *("MLOPS_SIGNING_KEY", "MLOPS_VERIFYING_KEYS"),
}


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    # A setting that was withheld is none that works: its default could be another database.
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
