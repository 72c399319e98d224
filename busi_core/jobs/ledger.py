"""Which jobs there are and what is asked of them: submit, cancel, pause, resume, list.

Every function that changes something takes a permit, asks it first, and writes the audit log before it acts.
"""

import secrets
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime

from dbos import DBOSClient, WorkflowStatus
from dbos._error import DBOSQueueDeduplicatedError, DBOSWorkflowIDInUseError

from busi_core.access import Permit
from busi_core.audit import AuditLog
from busi_core.errors import JobError
from busi_core.jobs.plan import settle
from busi_core.jobs.run_folder import Order, read_status, write_order
from busi_core.jobs.spec import (
    CANCELLED,
    DONE,
    FAILED,
    OPEN_STATES,
    PAUSED,
    QUEUED,
    RUNNING,
    RUNS_DIR,
    Job,
    JobSpec,
)
from busi_core.jobs.store import QUEUE, WANTED, WORKFLOW, exists, open_client
from busi_core.settings import Settings

UNEXPECTED = "The worker met an error of the program. See worker.log in the state folder, then resume the job."


def submit(permit: Permit, spec: JobSpec, settings: Settings, audit: AuditLog) -> Job:
    """Queue a job; it runs as soon as a worker has a free device.

    Args:
        permit: Of an administrator.
        spec: What to train; 'in-service' becomes the version that is in service now.
        settings: Where things lie.
        audit: 'job.queued' is written before.

    Raises:
        AccessDeniedError: The permit does not hold.
        JobError: The order cannot be, or its name is taken by another job; the message names who ordered that.
        ModelUnavailableError: There is no such version to start from.
        OutputError: The disk is full; nothing was queued.
    """
    who = permit.confirm()
    settled = settle(spec, settings)
    _require_free_name(settled.version, list_jobs(settings))
    order = Order(f"{_now():%Y%m%d-%H%M%S-%f}-{secrets.token_hex(2)}", 1, who, settled)  # SQLite counts whole seconds
    audit.append(who, "job.queued", order.job, **settled.as_json())
    write_order(settings.state_dir / RUNS_DIR / order.job, order)
    _enqueue(order, settings, audit)
    return read_job(settings, order.job)


def cancel(permit: Permit, id: str, settings: Settings, audit: AuditLog) -> Job:
    """End a job for good; a training that runs is killed within seconds. Its run folder stays.

    Raises:
        AccessDeniedError: The permit does not hold.
        JobError: There is no such job, or it is over.
    """
    return _stop(permit, id, settings, audit, CANCELLED, "job.cancelled", (QUEUED, RUNNING, PAUSED, FAILED))


def pause(permit: Permit, id: str, settings: Settings, audit: AuditLog) -> Job:
    """Stop a queued or running job, to be resumed; at most the epoch that runs now is done again.

    Raises:
        AccessDeniedError: The permit does not hold.
        JobError: There is no such job, or it does not run.
    """
    return _stop(permit, id, settings, audit, PAUSED, "job.paused", (QUEUED, RUNNING))


def resume(permit: Permit, id: str, settings: Settings, audit: AuditLog) -> Job:
    """Queue a paused or failed job again; it goes on from its last whole epoch.

    Raises:
        AccessDeniedError: The permit does not hold.
        JobError: There is no such job, it is neither paused nor failed, or another administrator was faster.
        OutputError: The disk is full; nothing was queued.
    """
    who = permit.confirm()
    job = read_job(settings, id)
    _require_state(job, (PAUSED, FAILED), "resumed")
    _require_free_name(job.spec.version, [other for other in list_jobs(settings) if other.id != id])
    order = Order(job.id, job.attempt + 1, job.who, job.spec)
    audit.append(who, "job.resumed", job.id, attempt=order.attempt)
    write_order(job.run_dir, order)
    _enqueue(order, settings, audit)
    return read_job(settings, id)


def list_jobs(settings: Settings) -> list[Job]:
    """Every job, newest first.

    Raises:
        JobError: The database cannot be read.
    """
    if not exists(settings):
        return []
    with open_client(settings) as client:
        attempts = client.list_workflows(name=WORKFLOW)
    return list(reversed(_read_attempts(attempts, settings)))


def read_job(settings: Settings, id: str) -> Job:
    """One job by its id.

    Raises:
        JobError: There is none, or the database cannot be read.
    """
    for job in list_jobs(settings):
        if job.id == id:
            return job
    raise JobError(f"There is no job {id!r}.", remedy="Choose one of the list.")


def _stop(
    permit: Permit, id: str, settings: Settings, audit: AuditLog, state: str, action: str, allowed: tuple[str, ...]
) -> Job:
    who = permit.confirm()
    job = read_job(settings, id)
    _require_state(job, allowed, state)
    audit.append(who, action, id, attempt=job.attempt, version=job.spec.version)
    workflow = f"{id}.{job.attempt}"
    with open_client(settings) as client:
        client.update_workflow_attributes(workflow, {WANTED: state})
        client.cancel_workflow(workflow)
    return read_job(settings, id)


def _enqueue(order: Order, settings: Settings, audit: AuditLog) -> None:
    """One attempt into the queue; of two at the same moment the database takes one."""
    version = order.spec.version
    with open_client(settings) as client:
        try:
            client.enqueue(
                {
                    "workflow_name": WORKFLOW,
                    "queue_name": QUEUE,
                    "workflow_id": f"{order.job}.{order.attempt}",
                    "workflow_id_reuse_policy": "reject",
                    "deduplication_id": version,
                },
                order.as_json(),
            )
        except (DBOSQueueDeduplicatedError, DBOSWorkflowIDInUseError) as error:
            taken = _find_by_version(client, version, settings)
            audit.append(order.who, "job.failed", order.job, attempt=order.attempt, reason="another was faster")
            raise _taken(version, taken) from error


def _find_by_version(client: DBOSClient, version: str, settings: Settings) -> Job | None:
    jobs = _read_attempts(client.list_workflows(name=WORKFLOW), settings)
    return next((job for job in jobs if job.spec.version == version and job.state in OPEN_STATES), None)


def _require_free_name(version: str, jobs: Iterable[Job]) -> None:
    for job in jobs:
        if job.spec.version == version and job.state in OPEN_STATES:
            raise _taken(version, job)


def _taken(version: str, job: Job | None) -> JobError:
    by = f": {job.who} ordered it at {job.created}, and it is {job.state}" if job else ""
    return JobError(f"Another job makes {version!r} already{by}.", remedy="Choose another name, or cancel that job.")


def _require_state(job: Job, allowed: tuple[str, ...], wanted: str) -> None:
    if job.state not in allowed:
        raise JobError(
            f"The job {job.spec.version!r} is {job.state} and cannot be {wanted}.",
            remedy=f"That is for jobs that are {' or '.join(allowed)}.",
        )


def _read_attempts(attempts: Iterable[WorkflowStatus], settings: Settings) -> list[Job]:
    """One job for all its attempts: ordered at the first, standing where the last does."""
    jobs: dict[str, Job] = {}
    for status in sorted(attempts, key=lambda status: (status.created_at or 0, status.workflow_id)):
        job = _read_attempt(status, settings)
        first = jobs.get(job.id, job)
        jobs[job.id] = replace(job, who=first.who, created=first.created, started=job.started or first.started)
    return list(jobs.values())


def _read_attempt(status: WorkflowStatus, settings: Settings) -> Job:
    given = status.input
    if given is None:
        raise JobError(f"The job {status.workflow_id!r} is damaged.", remedy="Restore the database from a backup.")
    order = Order.from_json(given["args"][0])
    run = settings.state_dir / RUNS_DIR / order.job
    output = status.output or {}
    wanted = (status.attributes or {}).get(WANTED)
    state: str = FAILED
    problem: str | None = UNEXPECTED
    if status.status in ("ENQUEUED", "DELAYED"):
        state, problem = QUEUED, None
    elif status.status == "PENDING":
        state, problem = RUNNING, None
    elif status.status == "CANCELLED":
        state, problem = wanted or CANCELLED, None
    elif status.status == "SUCCESS":
        state, problem = (DONE, None) if output["done"] else (FAILED, output["problem"])
    if state == FAILED and wanted == CANCELLED:  # given up after it failed; its workflow ended long before
        state, problem = CANCELLED, None
    told = read_status(run)
    return Job(
        id=order.job,
        spec=order.spec,
        state=state,
        who=order.who,
        created=_moment(status.created_at) or "",
        started=_moment(status.dequeued_at),
        ended=_moment(status.completed_at),
        problem=problem,
        device=told.device if told else None,
        run_dir=run,
        attempt=order.attempt,
    )


def _moment(epoch_ms: int | None) -> str | None:
    return None if epoch_ms is None else datetime.fromtimestamp(epoch_ms / 1000, UTC).isoformat(timespec="seconds")


def _now() -> datetime:
    return datetime.now(UTC)
