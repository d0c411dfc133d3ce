"""Task entry that hands the winners of experiments to the gate."""

from mlops_tasks.config import load_settings
from mlops_tasks.experiments.winners import judge_winner, unjudged_winners
from mlops_tasks.process import RUN_NOTE
from mlops_tasks.stage_results import JudgedWinners


def judge_winners_task() -> JudgedWinners:
    """Have the gate judge every winner that it has not judged yet, whoever has decided the experiment; deploy nothing.

    Raises
    ------
    RegistryError, DigestMismatchError, RecordMismatchError, NotApprovedError, StoreError
        As `judge_winner`. The winners before it are judged.
    """
    settings = load_settings()
    verdicts = [judge_winner(settings, name) for name in unjudged_winners(settings)]
    result: JudgedWinners = {"judged": [each.to_json() for each in verdicts]}
    if verdicts:
        result[RUN_NOTE] = "; ".join(each.text for each in verdicts)  # type: ignore[literal-required]
    return result
