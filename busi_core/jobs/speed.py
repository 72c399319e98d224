"""How fast this machine trains, from the last epochs that ran here, and what that says about a run to come.

state/speed.json: for each device the side of the input and the seconds an image took, validation included.
"""

import json
from pathlib import Path
from typing import Any

from busi_core.files import write_atomically

SPEED_FILE = "speed.json"


def write_speed(state_dir: Path, device: str, side: int, seconds_per_image: float) -> None:
    """Keep what an epoch took."""
    known = _read(state_dir)
    known[device] = {"side": side, "seconds_per_image": seconds_per_image}
    write_atomically(state_dir / SPEED_FILE, json.dumps(known, indent=1).encode())


def estimate_seconds(state_dir: Path, *, images: int, epochs: int, side: int) -> float | None:
    """How long a run will take at most on this machine's slowest known device; None when nothing ever ran here.

    The time of an image is taken to grow with its pixels. An estimate: another network, another load and an earlier
    stop change it.
    """
    known = [
        float(entry["seconds_per_image"]) * (side / int(entry["side"])) ** 2 for entry in _read(state_dir).values()
    ]
    return max(known) * images * epochs if known else None


def _read(state_dir: Path) -> dict[str, dict[str, Any]]:
    try:
        content = json.loads((state_dir / SPEED_FILE).read_bytes())
        return {
            str(device): {"side": int(entry["side"]), "seconds_per_image": float(entry["seconds_per_image"])}
            for device, entry in content.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
