"""Fields that several forms have."""

from airflow.sdk import Param

SEGMENT_FORMAT = r"^\d{4}-\d{2}-\d{2}:\d{4}-\d{2}-\d{2}$"


def segment_param(title: str) -> Param:
    """A date range `first:last`; empty for the rolling default."""
    return Param(
        None,
        type=["null", "string"],
        pattern=SEGMENT_FORMAT,
        title=title,
        section="Segments",
        description_md="`first:last`, e.g. `2017-01-01:2020-08-31`. Give all three, or none for rolling 60/20/20.",
    )
