"""What a training learns from: loaded only when it is needed, and identified by its digest before that."""

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from mlops_tasks.config import Settings
from mlops_tasks.errors import TrainingError
from mlops_tasks.files import digest_of, read_json, write_json
from mlops_tasks.modeling.dataset import LearningData, load_learning_data
from mlops_tasks.modeling.identity import certified_code
from mlops_tasks.modeling.learning_spec import LearningSpec
from mlops_tasks.training.checks import check_learning_data


@dataclass(frozen=True)
class LearningSource:
    """A learning problem by its specification.

    The digest is computed once from the data, and kept in the home under the versions, the dates and the code that it
    depends on: an existing training is found without reading a feature.
    """

    settings: Settings
    spec: LearningSpec
    window: int

    @cached_property
    def loaded(self) -> LearningData:
        """The data, checked.

        Raises
        ------
        ConfigError, StoreError
            As `load_learning_data` and `check_learning_data`.
        """
        data = load_learning_data(self.settings, self.spec, self.window)
        check_learning_data(self.settings, self.spec, data)
        return data

    @cached_property
    def digest(self) -> str:
        """`LearningData.digest`; raises as `loaded` where it is not known yet."""
        try:
            return str(read_json(self._record)["digest"])
        except (OSError, ValueError, KeyError, TypeError):  # not known yet, or damaged
            write_json(self._record, {"digest": self._computed})
            return self._computed

    def check(self) -> None:
        """Load the data and check that they match the digest.

        Raises
        ------
        TrainingError
            They do not match; the digest that was kept is corrected.
        """
        if self._computed != self.digest:
            write_json(self._record, {"digest": self._computed})
            raise TrainingError(
                f"{self._record}: the digest of the learning data is not the one that was kept; the file has been "
                "corrected: train again, and find out what changed it or the features"
            )

    @cached_property
    def _computed(self) -> str:
        return self.loaded.digest()

    @cached_property
    def _record(self) -> Path:
        segments = {name: [str(day) for day in days] for name, days in self.spec.segments.items()}
        subject = {**asdict(self.spec), "segments": segments, "window": self.window, "code": certified_code()}
        return self.settings.home / "learning_data" / f"{digest_of(subject)}.json"
