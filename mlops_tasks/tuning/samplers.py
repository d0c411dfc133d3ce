"""Optuna's samplers and pruners as a study asks for them."""

import hashlib
import warnings

import optuna

from mlops_tasks.tuning.study import StudyConfig


def sampler_of(config: StudyConfig, index: int) -> optuna.samplers.BaseSampler:
    """The sampler of a study's `index`-th configuration.

    Its random numbers depend only on the study's seed and the index, not on the process: a study that was interrupted
    and resumed draws what it would have drawn without the interruption.

    tpe: tree-structured Parzen estimators (Bergstra et al., NIPS 2011). gp: a Gaussian process with log expected
    improvement (Ament et al., NeurIPS 2023). nsga2: Deb et al. (IEEE Transactions on Evolutionary Computation 6, 2002).
    cmaes: Hansen and Ostermeier (Evolutionary Computation 9, 2001).
    """
    seed = int.from_bytes(hashlib.sha256(f"{config.seed} {index}".encode()).digest()[:4], "big")
    startup = config.startup_trials
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if config.sampler == "tpe":
            return optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup)
        if config.sampler == "gp":
            return optuna.samplers.GPSampler(seed=seed, n_startup_trials=startup)
        if config.sampler == "nsga2":
            return optuna.samplers.NSGAIISampler(seed=seed, population_size=startup)
        if config.sampler == "cmaes":
            return optuna.samplers.CmaEsSampler(seed=seed, n_startup_trials=1, popsize=startup)
        return optuna.samplers.RandomSampler(seed=seed)


def pruner_of(config: StudyConfig) -> optuna.pruners.BasePruner:
    """The pruner of a study.

    median: worse than the median of earlier trials at the same iteration (Golovin et al., KDD 2017). hyperband: Li et
    al. (JMLR 18, 2018). wilcoxon: worse than the best trial by a signed-rank test over weeks of the walk-forward folds.
    """
    startup = config.startup_trials
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if config.pruner == "median":
            return optuna.pruners.MedianPruner(n_startup_trials=startup, n_min_trials=4)
        if config.pruner == "hyperband":
            return optuna.pruners.HyperbandPruner(min_resource=1, max_resource="auto", reduction_factor=3)
        if config.pruner == "wilcoxon":
            return optuna.pruners.WilcoxonPruner(p_threshold=0.05, n_startup_steps=8)
        return optuna.pruners.NopPruner()
