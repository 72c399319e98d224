"""The process that trains: python -m busi_core.jobs.train_child RUN DEVICE REPORT_FD

It does what the run's order.json says and tells the worker through REPORT_FD how it ended. It may be killed at any
moment: started again it goes on from the last whole epoch. It ends when the worker does.
"""

import json
import logging
import os
import resource
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from busi_core.data.dataset import Samples
from busi_core.errors import BusiError
from busi_core.jobs.examples import ExampleWriter
from busi_core.jobs.lifeline import end_with_parent
from busi_core.jobs.plan import plan_config, plan_recipe
from busi_core.jobs.run_folder import LOCK_FILE, Order, Outcome, Status, read_order, write_status
from busi_core.jobs.speed import write_speed
from busi_core.locks import ProcessLock
from busi_core.settings import read_settings
from busi_core.training.log import Epoch
from busi_core.training.state import CHECKPOINT_FILE
from busi_core.training_run import Listener, train_version

LOCK_SECONDS = 30.0  # a child before this one is killed within a second of its worker
OUT_OF_MEMORY = "The memory did not suffice. Queue it under another name with a smaller batch or a smaller size."
logger = logging.getLogger("busi_core.jobs.train_child")  # __name__ is '__main__' here


class Reporter:
    """Keeps the run folder's status, pictures and log as the training goes."""

    def __init__(self, run: Path, order: Order, device: str) -> None:
        self.run, self.order, self.device = run, order, device
        self.images, self.validation = 0, 0
        self.examples: ExampleWriter | None = None

    def on_samples(self, train: Samples, validation: Samples) -> None:
        """The scans are read."""
        self.images, self.validation = len(train), len(validation)
        logger.info("%d images to train on, %d to choose by; the test part stays closed.", len(train), len(validation))
        self.examples = ExampleWriter(self.run, plan_config(self.order.spec, read_settings()), validation)
        self.say("training")

    def on_epoch(self, epoch: Epoch) -> None:
        """An epoch lies on the disk."""
        logger.info("%s", epoch.describe(self.order.spec.epochs))
        self.say("training")
        if self.examples is not None:
            self.examples.draw(epoch)
        write_speed(read_settings().state_dir, self.device, self.order.spec.size, epoch.seconds / self.images)

    def on_release(self) -> None:
        """The version is about to be made."""
        self.say("making the version")

    def say(self, phase: str) -> None:
        """Write what is being done."""
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)
        on_gpu = torch.cuda.max_memory_reserved() / 1024**2 if torch.cuda.is_available() else None
        write_status(self.run, Status(phase, self.device, self.images, memory, on_gpu, self.validation))


def train(run: Path, device: str) -> Outcome:
    """Do what the order says; whatever a person can mend is an outcome in words."""
    try:
        order, settings = read_order(run), read_settings()
        reporter = Reporter(run, order, device)
        reporter.say("reading scans")
        for left_behind in run.glob(".*.new"):  # of a write that was killed; nobody else writes here now
            left_behind.unlink()
        train_version(
            order.spec.version,
            plan_recipe(order.spec, settings),
            data_sets=order.spec.data_sets,
            test_fold=order.spec.test_fold,
            run=run,
            settings=settings,
            resume=(run / CHECKPOINT_FILE).is_file(),
            description={"job": order.job, "ordered_by": order.who},
            listener=Listener(
                on_samples=reporter.on_samples, on_epoch=reporter.on_epoch, on_release=reporter.on_release
            ),
        )
    except BusiError as error:
        logger.error("%s %s", error.problem, error.remedy)
        return Outcome(False, f"{error.problem} {error.remedy}")
    except (MemoryError, torch.cuda.OutOfMemoryError):
        return Outcome(False, OUT_OF_MEMORY)
    return Outcome(True)


def main(arguments: list[str]) -> int:
    """Train once; 0 when the worker was told how it ended."""
    end_with_parent()
    run, device, report = Path(arguments[0]), arguments[1], int(arguments[2])
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%Y-%m-%d %H:%M:%S"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    lock = ProcessLock(run / LOCK_FILE)
    if not lock.acquire(wait_seconds=LOCK_SECONDS):
        outcome = Outcome(False, "Another process trains this run. End it and resume the job.")
    else:
        outcome = train(run, device)
    os.write(report, json.dumps(asdict(outcome)).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
