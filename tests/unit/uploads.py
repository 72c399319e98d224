"""Makers of data set uploads for tests: simulated scans with masks, packed as people pack them; known scans to meet."""

import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from files import save
from numpy.typing import NDArray

from busi_core.data.duplicates import fingerprint
from busi_core.imaging.decode import decode_image
from busi_core.imaging.phantom import simulate_scan
from busi_core.managed.inspection import examine
from busi_core.managed.intake import open_zip
from busi_core.managed.known import KnownScans
from busi_core.managed.report import InspectionReport
from busi_core.settings import Settings
from busi_core.types import Diagnosis

Files = dict[str, bytes]


def texture(height: int = 72, width: int = 96, *, seed: int = 0) -> NDArray[np.uint8]:
    """(height, width) soft blotches, different for every seed, darker than any text."""
    coarse = np.random.default_rng(seed).integers(0, 120, (height // 8, width // 8), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def scan_files(diagnosis: str, seed: int, *, name: str | None = None) -> Files:
    """One simulated scan and its mask in BUSI's layout: 'benign/b7.png', 'benign/b7_mask.png'."""
    sample = simulate_scan(Diagnosis(diagnosis), seed=seed, height=120, width=150)
    stem = f"{diagnosis}/{name or f'{diagnosis[0]}{seed}'}"
    return {f"{stem}.png": sample.png(), f"{stem}_mask.png": save(sample.mask.astype(np.uint8) * 255, "PNG")}


def three_classes(each: int = 2, *, first: int = 1) -> Files:
    """Sound scans, so many of each class, all different."""
    seeds = iter(range(first, first + 3 * each))
    return {
        name: data
        for diagnosis in Diagnosis
        for _ in range(each)
        for name, data in scan_files(diagnosis.value, next(seeds)).items()
    }


def pack(files: Mapping[str, bytes]) -> bytes:
    """A zip in memory."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def known_scans(
    known: Sequence[tuple[str, Diagnosis, bytes]] = (), *, test: Sequence[str] = (), missing: Sequence[str] = ()
) -> KnownScans:
    """Known images as (record id, class, file); those of `test` are the locked test set."""
    prints = [fingerprint(decode_image(data).grey) for _, _, data in known]
    return KnownScans(
        ids=tuple(id for id, _, _ in known),
        fingerprints=np.stack(prints) if prints else np.empty((0, 256), np.float32),
        diagnoses=tuple(diagnosis for _, diagnosis, _ in known),
        test_ids=frozenset(test),
        sets=(("busi", len(known)),) if known else (),
        test_parts_missing=tuple(missing),
    )


def report_on(files: Mapping[str, bytes], known: KnownScans | None = None) -> InspectionReport:
    """The report on these files as a zip."""
    return examine(open_zip(pack(files)), known or known_scans())


def settings_in(folder: Path) -> Settings:
    """Everything in a folder of the test; no data root, no corrections."""
    return Settings(
        weights_dir=folder / "weights",
        data_root=folder / "data",
        encoder_dir=folder / "encoders",
        device="cpu",
        state_dir=folder / "state",
    )


def write_public_sets(root: Path) -> bytes:
    """Tiny stand-ins for BUSI and BUS-BRA below a data root; returns a scan of the locked test set."""
    for number, diagnosis in enumerate(Diagnosis):
        for name, data in scan_files(diagnosis.value, 900 + number, name=f"{diagnosis} (5)").items():
            path = root / "busi" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    image, mask = scan_files("benign", 910).values()
    for path, data in {
        "Images/bus_0001-l.png": image,
        "Masks/mask_0001-l.png": mask,
        "bus_data.csv": b"ID,Case,Pathology,BIRADS,Device\nbus_0001-l,1,benign,3,x\n",
        "5-fold-cv.csv": b"ID,kFold\nbus_0001-l,3\n",
    }.items():
        (root / "bus-bra" / path).parent.mkdir(parents=True, exist_ok=True)
        (root / "bus-bra" / path).write_bytes(data)
    return image
