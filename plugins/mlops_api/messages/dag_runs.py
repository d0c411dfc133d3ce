"""What the API says of work that it has started."""

from pydantic import BaseModel, Field


class StartedRun(BaseModel):
    """A DAG run that does what was asked for."""

    dag_id: str
    run_id: str
    page: str = Field(description="Its page in Airflow, below the server's address.")
    paused: bool = Field(description="Whether the DAG is paused: then the run waits until somebody unpauses it.")
