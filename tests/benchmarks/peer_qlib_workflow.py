"""Qlib's own workflow on a Qlib store: handler, LightGBM fit, predict, IC, backtest. The peer of the daily chain.

    python -m tests.benchmarks.peer_qlib_workflow '{"store": ..., "instruments": "universe", "segments": {...}, ...}'

The last line is one JSON object: the seconds of each step and the metrics on the test segment. Nothing of mlops_tasks
is imported: this is what a user of Qlib alone would write, with Qlib's published parameters.
"""

import json
import sys
import tempfile
import time

PARAMETERS = {
    "loss": "mse",
    "colsample_bytree": 0.8879,
    "learning_rate": 0.2,
    "subsample": 0.8789,
    "lambda_l1": 205.6999,
    "lambda_l2": 580.9768,
    "max_depth": 8,
    "num_leaves": 210,
}
"""Qlib's published LightGBM parameters for Alpha158."""


def run(task: dict) -> dict:
    """Run `task`: store, instruments, segments, threads, seed, topk, n_drop, benchmark (date to return)."""
    import pandas as pd
    import qlib
    from qlib.contrib.data.handler import Alpha158
    from qlib.contrib.eva.alpha import calc_ic
    from qlib.contrib.evaluate import backtest_daily, risk_analysis
    from qlib.contrib.model.gbdt import LGBModel
    from qlib.data.dataset import DatasetH
    from qlib.workflow import R

    seconds = {}
    started = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal started
        now = time.perf_counter()
        seconds[name], started = round(now - started, 2), now

    with tempfile.TemporaryDirectory() as folder:
        manager = {
            "class": "MLflowExpManager",
            "module_path": "qlib.workflow.expm",
            "kwargs": {"uri": f"sqlite:///{folder}/mlflow.db", "default_exp_name": "peer"},
        }
        qlib.init(provider_uri=task["store"], region="us", kernels=task["threads"], exp_manager=manager)
        segments = task["segments"]
        lap("init")
        handler = Alpha158(
            instruments=task["instruments"],
            start_time=segments["train"][0],
            end_time=segments["test"][1],
            fit_start_time=segments["train"][0],
            fit_end_time=segments["train"][1],
        )
        dataset = DatasetH(handler, segments={name: tuple(days) for name, days in segments.items()})
        lap("handler")
        model = LGBModel(num_threads=task["threads"], seed=task["seed"], **PARAMETERS)
        with R.start(experiment_name="peer"):
            model.fit(dataset)
        lap("fit")
        score = model.predict(dataset)
        lap("predict")
        label = dataset.prepare("test", col_set="label").iloc[:, 0]
        ic, rank_ic = calc_ic(score, label)
        lap("ic")
        benchmark = pd.Series(task["benchmark"], dtype=float)
        benchmark.index = pd.to_datetime(benchmark.index)
        days = score.index.get_level_values("datetime").unique().sort_values()
        report, _ = backtest_daily(
            start_time=days[0],
            end_time=days[-2],
            strategy={
                "class": "TopkDropoutStrategy",
                "module_path": "qlib.contrib.strategy",
                "kwargs": {"signal": score, "topk": task["topk"], "n_drop": task["n_drop"]},
            },
            account=1e8,
            benchmark=benchmark,
            exchange_kwargs={
                "deal_price": "close",
                "open_cost": 0.0005,
                "close_cost": 0.0015,
                "min_cost": 5,
                "limit_threshold": None,
                "freq": "day",
            },
        )
        excess = risk_analysis(report["return"] - report["bench"] - report["cost"], freq="day")["risk"]
        lap("backtest")
    return {
        "seconds": seconds,
        "rows": len(score),
        "best_iteration": int(model.model.best_iteration),
        "ic_mean": float(ic.mean()),
        "icir": float(ic.mean() / ic.std()),
        "rank_ic_mean": float(rank_ic.mean()),
        "rank_icir": float(rank_ic.mean() / rank_ic.std()),
        "excess_return_after_cost": float(excess["annualized_return"]),
        "information_ratio": float(excess["information_ratio"]),
    }


if __name__ == "__main__":
    print("\n" + json.dumps(run(json.loads(sys.argv[1]))))
