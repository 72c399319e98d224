"""Makers of gates for tests: simulated scans under names of BUSI's folds, rules of their own, versions to judge."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from busi_core.audit import AuditLog, open_audit
from busi_core.data.splits import read_folds
from busi_core.errors import AccessDeniedError
from busi_core.imaging.phantom import simulate_scan
from busi_core.promotion.locked import checksum, select
from busi_core.promotion.protocol import Protocol, read_protocol
from busi_core.settings import PROJECT_ROOT, Settings
from busi_core.types import Diagnosis

SCANS_A_CLASS = 4
RULES = (PROJECT_ROOT / "promotion.toml").read_text(encoding="utf-8")


@dataclass
class OnePerson:
    """A permit that can be taken away."""

    name: str = "Dr. Ada"
    is_administrator: bool = True

    def confirm(self) -> str:
        if not self.is_administrator:
            raise AccessDeniedError("You are no administrator any more.", remedy="Ask the owner.")
        return self.name


@dataclass(frozen=True)
class Gate:
    """Everything that a judgement needs, in one folder."""

    settings: Settings

    @property
    def protocol(self) -> Protocol:
        return read_protocol(self.settings.promotion_protocol)

    @property
    def audit(self) -> AuditLog:
        return open_audit(self.settings)

    @property
    def weights_dir(self) -> Path:
        return self.settings.weights_dir

    def environment(self) -> dict[str, str]:
        """The variables that name these folders to a program."""
        return {
            "BUSI_WEIGHTS_DIR": str(self.settings.weights_dir),
            "BUSI_DATA_ROOT": str(self.settings.data_root),
            "BUSI_STATE_DIR": str(self.settings.state_dir),
            "BUSI_PROMOTION_PROTOCOL": str(self.settings.promotion_protocol),
            "BUSI_DEVICE": "cpu",
        }


def make_gate(folder: Path, weights_dir: Path, *, ease: Callable[[str], str] = lambda text: text) -> Gate:
    """Simulated scans, rules that lock those of fold 0, and the weights folder that is given.

    Args:
        folder: For data, state and rules.
        weights_dir: With a version in service.
        ease: Changes the rules further.
    """
    _write_scans(folder / "data")
    settings = Settings(
        weights_dir=weights_dir,
        data_root=folder / "data",
        encoder_dir=folder,
        device="cpu",
        state_dir=folder / "state",
        promotion_protocol=folder / "promotion.toml",
    )
    locked = select("busi", 0, settings)
    settings.promotion_protocol.write_text(ease(small_rules(len(locked), checksum(locked))), encoding="utf-8")
    return Gate(settings)


def copy_gate(gate: Gate, folder: Path, weights_dir: Path) -> Gate:
    """The same scans and rules in a folder of their own, for a test that may spoil them.

    Args:
        gate: To copy.
        folder: For data, state and rules.
        weights_dir: Of the copy; with versions already.
    """
    settings = replace(
        gate.settings,
        weights_dir=weights_dir,
        data_root=folder / "data",
        state_dir=folder / "state",
        promotion_protocol=folder / "promotion.toml",
    )
    shutil.copytree(gate.settings.data_root, settings.data_root)
    shutil.copy(gate.settings.promotion_protocol, settings.promotion_protocol)
    return Gate(settings)


def small_rules(scans: int, sha256: str) -> str:
    """The real rules, on one small test set, with few draws."""
    head, _, rest = RULES.partition("[[test_set]]")
    rules = rest[rest.index("[smallest]") :]
    test_set = f'[[test_set]]\nname = "small"\ndata_set = "busi"\nfold = 0\nscans = {scans}\nsha256 = "{sha256}"\n\n'
    for before, after in (
        ("normal = 10 ", f"normal = {SCANS_A_CLASS} "),
        ("benign = 100", f"benign = {SCANS_A_CLASS}"),
        ("malignant = 100", f"malignant = {SCANS_A_CLASS}"),
        ("draws = 2000", "draws = 100"),
    ):
        assert before in rules
        rules = rules.replace(before, after)
    return head + test_set + rules


def scored(fold: int, diagnosis: Diagnosis) -> list[str]:
    """Names of the scans of one fold and class that are scored."""
    return [scan.scored for scan in read_folds() if scan.fold == fold and (scan.scored or "").startswith(diagnosis)]


def _write_scans(data_root: Path) -> None:
    for fold in range(3):
        for diagnosis in Diagnosis:
            for name in scored(fold, diagnosis)[:SCANS_A_CLASS]:
                folder = data_root / "busi" / diagnosis
                folder.mkdir(parents=True, exist_ok=True)
                scan = simulate_scan(diagnosis, seed=int(name.split("(")[1][:-1]), height=96, width=120)
                (folder / f"{name}.png").write_bytes(scan.png())
                Image.fromarray(scan.mask).save(folder / f"{name}_mask.png")


def copy_version(weights_dir: Path, version: str, name: str) -> None:
    """The same weights under another name."""
    shutil.copytree(weights_dir / version, weights_dir / name)
    card = weights_dir / name / "card.json"
    card.write_text(card.read_text().replace(f'"version": "{version}"', f'"version": "{name}"'))


def damage(path: Path, how: str) -> None:
    """Spoil a file: 'truncated', 'a bit flipped', 'missing', or another content."""
    data = path.read_bytes()
    if how == "truncated":
        path.write_bytes(data[:-100])
    elif how == "a bit flipped":
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif how == "missing":
        path.unlink()
    else:
        path.write_bytes(b"{}")
