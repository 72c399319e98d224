"""Puts two versions into service in turn until it is killed; run by test_promote.py as a program of its own."""

import itertools
import sys

from gate import OnePerson

from busi_core.audit import open_audit
from busi_core.promotion.promote import roll_back
from busi_core.registry import read_registry
from busi_core.settings import read_settings

settings = read_settings()
sys.stdout.write("begun\n")
sys.stdout.flush()
for _ in itertools.count():
    now = read_registry(settings.weights_dir).in_service
    roll_back(
        OnePerson(),
        next(name for name in ("tiny", "same") if name != now),
        comment="in turn",
        expected_in_service=now,
        settings=settings,
        audit=open_audit(settings),
    )
    sys.stdout.write(".")
    sys.stdout.flush()
