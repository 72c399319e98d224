"""The database of the jobs, kept by DBOS: SQLite in the state folder, or the Postgres that the settings name.

One attempt at a job is one DBOS workflow '<job id>.<attempt>', with an `Order` as its input and the attempt's outcome
as its output, both JSON: nothing is unpickled.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dbos import DBOS, DBOSClient
from dbos._error import DBOSException
from dbos._serialization import Serializer
from sqlalchemy.exc import SQLAlchemyError

from busi_core.errors import JobError, OutputError
from busi_core.settings import Settings

APPLICATION = "busi-reader"
APPLICATION_VERSION = "1"  # of what a workflow does; by default it changes with the code, and old jobs would wait
QUEUE = "training"
WORKFLOW = "train"
DATABASE_FILE = "jobs.sqlite"
WANTED = "wanted"  # attribute of a workflow that was stopped: 'paused' or 'cancelled'

_prepared: set[str] = set()
_preparing = threading.Lock()


class JsonSerializer(Serializer):
    """JSON where DBOS would pickle; an error becomes its text."""

    def serialize(self, data: Any) -> str:
        """Text of plain values."""
        return json.dumps(data, default=str)

    def deserialize(self, serialized_data: str) -> Any:
        """The values back; tuples as lists."""
        return json.loads(serialized_data)

    def name(self) -> str:
        """As it stands beside each value in the database."""
        return "busi_json"


def database_url(settings: Settings) -> str:
    """Address of the database in SQLAlchemy's form."""
    return settings.jobs_database or f"sqlite:///{settings.state_dir.resolve() / DATABASE_FILE}"


def exists(settings: Settings) -> bool:
    """Whether anything was ever queued, as far as can be told without asking a server."""
    return bool(settings.jobs_database) or (settings.state_dir / DATABASE_FILE).is_file()


@contextmanager
def open_client(settings: Settings) -> Iterator[DBOSClient]:
    """A connection to the jobs; the database is made when it is not there.

    Raises:
        JobError: It cannot be reached, read or written.
    """
    url = database_url(settings)
    client: DBOSClient | None = None
    try:
        _prepare(settings, url)
        client = DBOSClient(
            system_database_url=url,
            serializer=JsonSerializer(),
            application_name=APPLICATION,
            retry_connection_errors=False,
        )
        yield client
    except (SQLAlchemyError, DBOSException, OSError) as error:
        raise JobError(
            f"The list of training jobs cannot be read or written ({type(error).__name__}).",
            remedy="See that the disk has room and that the database of BUSI_JOBS_DATABASE, if named, is running.",
        ) from error
    finally:
        if client is not None:
            client.destroy()


def _prepare(settings: Settings, url: str) -> None:
    """Make the tables, once a process."""
    with _preparing:
        if url in _prepared and exists(settings):
            return
        if not settings.jobs_database:
            try:
                settings.state_dir.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OutputError(
                    f"The state folder cannot be made ({error.strerror}).", remedy="Set BUSI_STATE_DIR to another."
                ) from error
        DBOS.migrate(url)
        _prepared.add(url)
