"""Where things lie and what limits hold; each can be set by an environment variable.

| variable         | meaning                                                    | default       |
|------------------|------------------------------------------------------------|---------------|
| BUSI_WEIGHTS_DIR | folder with registry.json and one folder a model version   | weights/ of the project |
| BUSI_DATA_ROOT   | folder with busi/ and bus-bra/ for training and evaluation | ../shared/data beside the project |
| BUSI_ENCODER_DIR | folder with ImageNet encoders to start from                | ../shared/weights beside the project |
| BUSI_DEVICE      | 'cpu', 'cuda' or 'auto'                                    | auto |
| BUSI_BATCH_ROOT  | folder whose subfolders readers may read in one go, beside those of BUSI_DATA_ROOT | none |
| BUSI_CORRECTIONS_DIR | folder that readers may keep corrected cases in        | none: nothing is kept |
| BUSI_STATE_DIR   | folder of the administration: audit log, jobs, data sets, runs | state/ of the project |
| BUSI_JOBS_DATABASE | address of a Postgres for the jobs of several machines | none: SQLite in the state folder |
| BUSI_PROMOTION_PROTOCOL | the rules of the gate: what a candidate must reach  | promotion.toml of the project |
| BUSI_DEMO        | '1': a public demo; no administration, nothing is kept     | none |
"""

import os
from dataclasses import dataclass
from pathlib import Path

from busi_core.errors import ModelUnavailableError

PROJECT_ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Settings:
    """The paths and device in force, read once from the environment by `read_settings`."""

    weights_dir: Path
    data_root: Path
    encoder_dir: Path
    device: str
    corrections_dir: Path | None = None
    batch_root: Path | None = None
    state_dir: Path = PROJECT_ROOT / "state"
    jobs_database: str | None = None
    promotion_protocol: Path = PROJECT_ROOT / "promotion.toml"
    demo: bool = False

    def environment(self) -> dict[str, str]:
        """What makes `read_settings` give these folders, rules and device in another process, wherever that runs."""
        named = {
            "BUSI_WEIGHTS_DIR": self.weights_dir.resolve(),
            "BUSI_DATA_ROOT": self.data_root.resolve(),
            "BUSI_ENCODER_DIR": self.encoder_dir.resolve(),
            "BUSI_STATE_DIR": self.state_dir.resolve(),
            "BUSI_PROMOTION_PROTOCOL": self.promotion_protocol.resolve(),
            "BUSI_DEVICE": self.device,
        }
        return {name: str(value) for name, value in named.items()}


def read_settings() -> Settings:
    """Read the environment now; nothing is cached, so a test may change a variable.

    Raises:
        ModelUnavailableError: BUSI_DEVICE is none of 'auto', 'cpu', 'cuda'.
    """
    shared = PROJECT_ROOT.parent / "shared"
    device = os.environ.get("BUSI_DEVICE") or "auto"  # compose passes on an empty one
    if device not in ("auto", "cpu", "cuda"):
        raise ModelUnavailableError(f"BUSI_DEVICE is {device!r}.", remedy="Set it to auto, cpu or cuda.")
    batch = os.environ.get("BUSI_BATCH_ROOT")
    corrections = os.environ.get("BUSI_CORRECTIONS_DIR")
    demo = os.environ.get("BUSI_DEMO") == "1"
    return Settings(
        weights_dir=Path(os.environ.get("BUSI_WEIGHTS_DIR") or PROJECT_ROOT / "weights"),
        data_root=Path(os.environ.get("BUSI_DATA_ROOT") or shared / "data"),
        encoder_dir=Path(os.environ.get("BUSI_ENCODER_DIR") or shared / "weights"),
        device=device,
        corrections_dir=Path(corrections) if corrections and not demo else None,
        batch_root=Path(batch) if batch and not demo else None,
        state_dir=Path(os.environ.get("BUSI_STATE_DIR") or PROJECT_ROOT / "state"),
        jobs_database=os.environ.get("BUSI_JOBS_DATABASE") or None,
        promotion_protocol=Path(os.environ.get("BUSI_PROMOTION_PROTOCOL") or PROJECT_ROOT / "promotion.toml"),
        demo=demo,
    )
