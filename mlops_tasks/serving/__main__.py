"""`python -m mlops_tasks.serving`: the scoring service, one process or several workers, until it is told to end."""

import logging
import sys

from mlops_tasks.config import load_settings
from mlops_tasks.errors import MlopsError
from mlops_tasks.private import be_private, open_to_others
from mlops_tasks.serving.access_log import write_lines_alone
from mlops_tasks.serving.app import create_app
from mlops_tasks.serving.server import make_server
from mlops_tasks.serving.supervisor import serve_by_workers

log = logging.getLogger(__name__)


def main() -> int:
    """Serve; the exit status is 1 when the service cannot start."""
    be_private()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    write_lines_alone()
    try:
        settings = load_settings()
        if open_to_others(settings.home):
            log.warning("%s is open to other users; make up closes it, or chmod 700", settings.home)
        if settings.serving.workers > 1:
            return serve_by_workers(settings)
        app = create_app(settings)
    except (MlopsError, OSError) as error:
        log.error("%s: %s", type(error).__name__, error)
        return 1
    make_server(app, settings).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
