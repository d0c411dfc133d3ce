"""A report of each kind in a home, whose texts are as hostile as a source, a model's name or a file may make them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mlops_tasks.columns import INSTRUMENT
from mlops_tasks.config import Settings
from mlops_tasks.data.sources.parsed import PARSE_ERROR, SOURCE_FILE
from mlops_tasks.data.validation.data_docs import evidence_of, render_index, render_suites
from mlops_tasks.data.validation.expectations import load_suites
from mlops_tasks.data.validation.rules import Rules, validate
from mlops_tasks.data.validation.staging import ValidationReport, write_quarantine
from mlops_tasks.files import write_json
from mlops_tasks.html_page import page as html_page
from mlops_tasks.html_page import table
from mlops_tasks.plots.comparison import comparison_info, plot_comparison
from mlops_tasks.plots.figure import write_png
from tests.data.market import make_bars, parsed_frame

EVIL = "<img src=x onerror=\"document.title='ta'+'ken'\"><script>document.title='ta'+'ken'</script>"
"""Names its page `taken` where it runs; the word itself is not in it."""
STAGING = "0123456789abcdef"
BROKEN_ROWS = 250
"""Rows without an open: three pages."""


@dataclass(frozen=True)
class Reports:
    """Names of the reports by kind."""

    names: dict[str, str]

    @property
    def paths(self) -> list[str]:
        """Of their pages, below `/mlops/ui/`."""
        return [f"reports/{kind}/{name}" for kind, name in self.names.items()]


def write_reports(settings: Settings, folder: Path) -> Reports:
    """Write them below the home; `folder` is for what is made on the way."""
    names = {"drift": "2026-02-27-v1-0a1b2c3d", "comparison": "2026-02-27-v1-v2-0a1b2c3d", "model_table": "v1-0a1b2c3d"}
    names |= {"explanation": "2026-02-27-v1-0a1b2c3d", "ab_test": "orders"}
    _write_drift(settings.reports_dir / "drift" / names["drift"])
    _write_comparison(settings.reports_dir / "comparison" / names["comparison"])
    _write_table(settings.reports_dir / "model_table" / names["model_table"])
    _write_explanation(settings.reports_dir / "explanation" / names["explanation"])
    _write_ab_test(settings.reports_dir / "ab_test" / names["ab_test"])
    _write_validation(settings)
    return Reports(names | {"data_docs": STAGING, "quarantine": STAGING})


def picture(path: Path) -> None:
    """A plot as reports have them."""
    days = pd.bdate_range("2026-01-01", periods=40)
    difference = pd.Series(np.random.default_rng(1).normal(0, 0.02, 40), days)
    write_png(plot_comparison(comparison_info(difference, 0.003, 0.4, "Rank IC")), path)


def _write_drift(folder: Path) -> None:
    beyond = [
        {"column": name, "statistic": "level", "days": 1, "exceedance": 1.7, "rows_outside": 0.31}
        | {"wasserstein": 0.62, "nan_share_current": 0.0, "importance_share": share, "cost": share and share / 2}
        for name, share in (("score", None), ("VSUMD60", 0.12), (EVIL, None))
    ]
    report = {
        **{"date": "2026-02-27", "model_version": 1, "training_key": "a" * 16, "data_version": "v1"},
        **{"current_days": 20, "current_rows": 10_000, "columns": 159, "verdict": "drift", "n_alert": 3, "n_warn": 1},
        **{"scores_beyond": True, "importance_by": "what the training recorded", "importance_unknown": 1},
        **{"importance_beyond": 0.12, "beyond": beyond, "psi_max": 0.41, "score_psi": 0.02},
    }
    write_json(folder / "report.json", report)
    picture(folder / "drift.png")
    pd.DataFrame({"column": ["VSUMD60"]}).to_parquet(folder / "drift.parquet")


def _write_comparison(folder: Path) -> None:
    report = {
        **{"champion_version": 1, "challenger_version": 2, "first_date": "2025-11-03", "last_date": "2026-02-27"},
        **{"n_days": 78, "difference": -0.0031, "p_two_sided": 0.41, "data_version": "v1"},
        "conclusion": f"no difference can be distinguished from luck {EVIL}",
    }
    write_json(folder / "report.json", report)
    picture(folder / "comparison.png")


def _write_table(folder: Path) -> None:
    band = {"n": 2, "values": [0.02, 0.03], "mean": 0.025, "standard_deviation": 0.007, "lower": 0.0, "upper": 0.05}
    plan = {"data_version": "v1", "feature_set": "alpha158", "segments": {"test": ["2025-01-02", "2026-02-27"]}}
    rows = [{"name": name, "metrics": {"test_rank_ic_mean": band}} for name in ("lightgbm", EVIL)]
    write_json(folder / "table.json", {"plan": plan, "feature_version": "f1", "seeds": [42, 43], "rows": rows})
    picture(folder / "table.png")


def _write_explanation(folder: Path) -> None:
    report = {
        **{"date": "2026-02-27", "model_version": 1, "training_key": "a" * 16, "data_version": "v1"},
        "sample": {"rows": 6000, "days": 120, "span": ["2025-01-02", "2026-02-27"]},
        "features": {EVIL: 0.31, "VSUMD60": 0.12, "KMID": 0.0},
    }
    write_json(folder / "report.json", report)
    (folder / "explanation.html").write_text(html_page("What moves version 1", table(("Feature",), [(EVIL,)])))
    picture(folder / "influence.png")


def _write_ab_test(folder: Path) -> None:
    design = {"hypothesis": f"It costs less. {EVIL}", "owner": EVIL, "arms": {EVIL: "0.5", "treatment": "0.5"}}
    report = {
        **{"state": "running", "winner": None, "reason": EVIL, "date": "2026-02-27", "advice": "stop_harm"},
        "design": design | {"looks": "weekly", "models": {EVIL: 1, "treatment": 2}},
        "analysis": {"days": 40, "planned_days": 120},
        "lines": ["orders: stop harm (treatment), day 40 of 120", f"treatment (guard): the treatment is worse {EVIL}"],
    }
    write_json(folder / "report.json", report)
    picture(folder / "effect.png")


def _write_validation(settings: Settings) -> None:
    frame = parsed_frame(make_bars(days=200, instruments=12))
    frame.loc[1000 : 999 + BROKEN_ROWS, "open"] = np.nan
    frame[INSTRUMENT] = frame[INSTRUMENT].replace({"S05": EVIL})
    frame[SOURCE_FILE] = frame[SOURCE_FILE].cat.rename_categories([f"{EVIL}.csv"])
    frame.loc[7, PARSE_ERROR] = f"Close='{EVIL}' is not a number"
    rules = Rules(load_suites())
    validation = validate(frame, rules)
    report = ValidationReport(
        staging=STAGING,
        source=f"{EVIL}.csv",
        rules_digest=rules.digest(),
        received=validation.received,
        accepted=validation.received - validation.quarantined,
        quarantined=validation.quarantined,
        rules=validation.rules,
        warnings=validation.warnings,
        rejected=f"rejected for {EVIL}",
    )
    docs = render_index(validation, rules, title=f"{EVIL}.csv", rejected=report.rejected)
    docs |= render_suites(evidence_of(validation, rules, rejected=report.rejected), rules.suites)
    write_quarantine(settings, report, validation, docs)
