"""Small feature sets of every kind of reach, for markets that are computed over and over."""

from collections.abc import Mapping

from mlops_tasks.features.sets import FeatureSet, stored_feature_set


def feature_set(
    name: str, expressions: Mapping[str, str], indicators: tuple[dict[str, object], ...] = ()
) -> FeatureSet:
    """A definition of its own."""
    content = {"feature_set": name, "names": list(expressions), "expressions": expressions, "indicators": indicators}
    return stored_feature_set(content)


SETS = {
    each.name: each
    for each in (
        feature_set(
            "windows",
            {
                "KLEN": "($high-$low)/$open",
                "VWAP": "$vwap/$close",
                "REF3": "Ref($close, 3)/$close",
                "MA5": "Mean($close, 5)/$close",
                "BETA6": "Slope($close, 6)/$close",
                "IMAX7": "IdxMax($high, 7)/7",
                "RANK8": "Rank($close, 8)",
                "VSTD9": "Std($volume, 9)/(Mean($volume, 4)+1e-12)",
                "NESTED": "Mean(Abs(Delta($open, 2)), 4)",
                "CORR10": "Corr($close, Log($volume+1), 10)",
            },
        ),
        feature_set("endless", {"EMA5": "EMA($close, 5)", "ALL": "Mean($volume, 0)", "KMID": "$close/$open-1"}),
        feature_set(
            "indicators",
            {"ROC4": "$close/Ref($close, 4)"},
            (
                {"indicator": "rsi", "window": 6, "name": "RSI"},
                {"indicator": "obv", "name": "OBV"},
                {"indicator": "sma", "window": 5, "name": "SMA"},
            ),
        ),
        feature_set(
            "foreign",
            {
                "BETA": "Corr($close/Ref($close, 1), ChangeInstrument('I00', $close/Ref($close, 1)), 6)",
                "MARKET": "ChangeInstrument('I00', Mean($volume, 9))",
                "GAP": "$open/$close",
            },
        ),
        feature_set(
            "across",
            {
                "RANK3": "CSRank($close/Ref($close, 3))",
                "SCORE": "CSZscore($volume)",
                "SMOOTH": "Mean(CSRank($high-$low), 4)",
                "TWICE": "CSZscore(CSRank($close)*$volume)",
                "GAP": "$open/$close",
            },
        ),
    )
}
