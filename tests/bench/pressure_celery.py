"""The Celery application of the pressure benchmark. REDIS names the socket of its broker."""

import os
from typing import Any

from celery import Celery

from tests.bench import pressure_work

app: Any = Celery("pressure", broker=f"redis+socket://{os.environ.get('REDIS', '/nowhere')}")
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    task_ignore_result=True,
    broker_connection_retry_on_startup=True,
)


@app.task  # type: ignore[untyped-decorator]
def thumbnails(path: str, out: str, verdicts: str) -> None:
    """One file."""
    pressure_work.thumbnails(path, out, verdicts)
