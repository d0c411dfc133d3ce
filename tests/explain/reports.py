"""A model's report with names as hostile as a desk's own files may make them."""

from dataclasses import replace

import numpy as np
import pandas as pd

from mlops_tasks.columns import DATETIME, INSTRUMENT
from mlops_tasks.explain.day_list import day_changes, day_reasons
from mlops_tasks.explain.engine import explain
from mlops_tasks.explain.model_report import Grouping, ModelReport, model_report
from mlops_tasks.explain.report_figures import report_figures
from mlops_tasks.explain.report_page import DayList, Figures, Subject, report_page
from mlops_tasks.explain.sample import SampleSize
from mlops_tasks.modeling.scoring import ScoringRows
from mlops_tasks.plots.figure import svg_text
from tests.explain.artefacts import artefact

EVIL = "<img src=x onerror=\"document.title='ta'+'ken'\"><script>document.title='ta'+'ken'</script>"
MATH = "$x^2$ & <b>"
FEATURES = [EVIL, MATH, "RSI14", "MACD"]


def rows() -> ScoringRows:
    """Eighty days of six names, one of them hostile too."""
    days = pd.bdate_range("2024-01-01", periods=80)
    index = pd.MultiIndex.from_product([days, ["A", "B", "C", "D", "E", EVIL]], names=[DATETIME, INSTRUMENT])
    values = np.random.default_rng(0).standard_normal((len(index), 4)).astype(np.float32)
    frame = pd.DataFrame(values, index, FEATURES)
    return ScoringRows(frame, np.ones(len(frame), np.bool_), days, days[0])


def made_report() -> tuple[ModelReport, DayList]:
    """Of a linear model with features of hostile names and two indicators, which another model replaced."""
    given, size = rows(), SampleSize(80, 6)
    base = artefact("linear", coefficients=[1.0, -0.5, 2.0, 0.25], intercept=0.0)
    model = replace(base, manifest={**base.manifest, "feature_names": FEATURES})  # type: ignore[arg-type]
    explanation = explain(model, given, given)
    label = pd.Series(np.random.default_rng(1).standard_normal(480), given.index) + explanation.scores
    grouping = Grouping(dict(zip(FEATURES, [EVIL, "price", "ta", "ta"], strict=True)), {"RSI14": EVIL, "MACD": "MACD"})
    report = model_report(model, given, explanation, label, grouping, size)
    day = explanation.days[-1]
    other = replace(explanation, contributions=explanation.contributions / 2, scores=explanation.scores / 2)
    changes = day_changes(explanation, day, 3, 2, replaced=other)
    return report, DayList(day_reasons(explanation, day, 3, 2), changes, 1)


def made_page() -> tuple[ModelReport, str]:
    """The report and its page."""
    report, day = made_report()
    figures = Figures(**{name: svg_text(figure, name) for name, figure in report_figures(report).items()})
    return report, report_page(Subject(2, EVIL, EVIL, "v1", "a" * 16), report, day, figures)
