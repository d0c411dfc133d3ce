"""Which of its two formats a request has, and its answer is to have: JSON, or an Apache Arrow stream."""

ARROW = "application/vnd.apache.arrow.stream"
JSON = "application/json"


def wants_arrow(accept: str) -> bool:
    """Whether a header `Accept` names Arrow and does not refuse it; JSON is what everybody else gets."""
    for each in accept.split(","):
        kind, *parameters = (part.strip().lower() for part in each.split(";"))
        if kind == ARROW:
            return not any(
                parameter.replace(" ", "") in ("q=0", "q=0.0", "q=0.00", "q=0.000") for parameter in parameters
            )
    return False


def is_arrow(content_type: str) -> bool:
    """Whether a header `Content-Type` says that the body is an Arrow stream."""
    return content_type.partition(";")[0].strip().lower() == ARROW
