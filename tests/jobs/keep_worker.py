"""What the open page Retrain does for the jobs, as a process that a test may kill: it sees that there is a worker."""

import time

from busi_core.jobs.launch import ensure_worker
from busi_core.jobs.ledger import list_jobs
from busi_core.settings import read_settings

POLL_SECONDS = 2.0  # as the page

settings = read_settings()
while True:
    ensure_worker(settings, list_jobs(settings))
    time.sleep(POLL_SECONDS)
