"""Predictions on the same few validation scans, each time the run got better: upper row reference, lower row model.

They show training data, never an upload. Drawing them leaves torch's random numbers as they were, so that a run ends
with the same weights whether it is watched or not.
"""

from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors.torch import load_file

from busi_core.data.dataset import Samples
from busi_core.files import write_atomically
from busi_core.imaging.encode import encode_png
from busi_core.imaging.overlay import draw_mask
from busi_core.imaging.preprocess import normalise
from busi_core.jobs.run_folder import EXAMPLES_DIR
from busi_core.models.network import build_network
from busi_core.training.config import TrainingConfig
from busi_core.training.log import Epoch, read_epochs
from busi_core.training.state import BEST_FILE
from busi_core.types import Mask, Rgb

COUNT = 6
TILE_PX = 160
GAP_PX = 4


class ExampleWriter:
    """Draws into a run's folder; one an attempt."""

    def __init__(self, run: Path, config: TrainingConfig, validation: Samples) -> None:
        places = np.linspace(0, len(validation) - 1, min(COUNT, len(validation))).round().astype(int)
        chosen = torch.from_numpy(places)
        self._run, self._config = run, config
        self._images, self._masks = validation.images[chosen], validation.masks[chosen]

    def draw(self, epoch: Epoch) -> None:
        """Write epoch-<n>.png when this is the best epoch so far.

        Raises:
            OutputError: The disk is full.
        """
        before = [earlier.score for earlier in read_epochs(self._run) if earlier.epoch < epoch.epoch]
        if before and epoch.score <= max(before):
            return
        rows = [self._row(self._masks[:, 0].bool().numpy()), self._row(self._predict())]
        grid = np.concatenate([rows[0], np.zeros((GAP_PX, rows[0].shape[1], 3), np.uint8), rows[1]])
        write_atomically(self._run / EXAMPLES_DIR / f"epoch-{epoch.epoch:03d}.png", encode_png(grid))

    @torch.no_grad()
    def _predict(self) -> Mask:
        with torch.random.fork_rng():
            network = build_network(self._config.architecture)
        network.load_state_dict(load_file(self._run / BEST_FILE))
        network.eval()
        logits = network(normalise(self._images.float() / 255, self._config.preprocess)).mask_logits
        found: Mask = (logits[:, 0] > 0).numpy()
        return found

    def _row(self, masks: Mask) -> Rgb:
        gap = np.zeros((TILE_PX, GAP_PX, 3), np.uint8)
        tiles: list[Rgb] = []
        for image, mask in zip(self._images[:, 0].numpy(), masks, strict=True):
            scan = cv2.resize(image, (TILE_PX, TILE_PX), interpolation=cv2.INTER_AREA)
            outlined = cv2.resize(mask.astype(np.uint8), (TILE_PX, TILE_PX), interpolation=cv2.INTER_NEAREST) > 0
            tiles += [draw_mask(np.repeat(scan[..., None], 3, axis=2), outlined), gap]
        return np.concatenate(tiles[:-1], axis=1)
