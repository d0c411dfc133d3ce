"""What a training learns from: loaded when it is needed, and known by its digest before that."""

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
    follows from: a training that is there already is found without reading a feature.
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
        """Check that the data are what the digest says; they are loaded for it.

        Raises
        ------
        TrainingError
            They are not: what was kept is forgotten.
        """
        if self._computed != self.digest:
            write_json(self._record, {"digest": self._computed})
            raise TrainingError(
                f"{self._record}: the learning data have another digest than was kept for them; the file is corrected, "
                "train again, and see what has changed it or the features"
            )

    @cached_property
    def _computed(self) -> str:
        return self.loaded.digest()

    @cached_property
    def _record(self) -> Path:
        segments = {name: [str(day) for day in days] for name, days in self.spec.segments.items()}
        subject = {**asdict(self.spec), "segments": segments, "window": self.window, "code": certified_code()}
        return self.settings.home / "learning_data" / f"{digest_of(subject)}.json"
