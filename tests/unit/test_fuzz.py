"""X1: twenty seconds of coverage-guided fuzzing in every run; longer ones are written down in docs/experiments.md."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from seeds import make_seeds

from busi_core.imaging.decode import decode_image

ROOT = Path(__file__).parents[2]
SECONDS = 20


def test_every_seed_is_an_image() -> None:
    """Or fuzzing would start from refusals."""
    for name, data in make_seeds().items():
        assert decode_image(data).grey.shape == (64, 64), name


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris has wheels for Linux only")
def test_no_bytes_that_fuzzing_finds_break_decoding(tmp_path: Path) -> None:
    """X1. An exception of another kind, 3 GB of memory or a minute for one input would end the run with an error.

    25 megapixels in 64-bit floats, which a grey window needs, are 0.7 GB beside the instrumented libraries.
    """
    options = [f"-max_total_time={SECONDS}", "-rss_limit_mb=3000", "-timeout=60", f"-artifact_prefix={tmp_path}/"]
    run = subprocess.run(
        [sys.executable, "tests/fuzz/fuzz_decode.py", str(tmp_path / "corpus"), *options],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        errors="replace",
    )
    assert run.returncode == 0, run.stderr[-4000:]
    assert "Done" in run.stderr
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(("crash", "oom", "timeout"))]
