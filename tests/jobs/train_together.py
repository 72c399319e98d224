"""One process of a training for test_distributed: FOLDER. Started alone or several times by torchrun.

It trains twice: into FOLDER/exact with fixed normalisation and no dropout, whose random numbers and statistics depend
on how a batch is shared out, and into FOLDER/usual as the product does.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from versions import SIDE_64, TINY

from busi_core.data.dataset import load_samples
from busi_core.data.simulated_set import split_simulated
from busi_core.recipes.product import PRODUCT
from busi_core.training.distributed import join_group
from busi_core.training.loop import fit

CONFIG = replace(
    PRODUCT,
    architecture=TINY,
    preprocess=replace(SIDE_64, side=32),
    start="random",
    epochs=3,
    batch_size=6,
    precision="fp32",
)


@contextmanager
def nothing_depends_on_the_share() -> Iterator[None]:
    """Batch normalisation by its running figures, and no dropout."""
    norm, dropout = functional.batch_norm, functional.dropout

    def fixed(
        x: Any, mean: Any, var: Any, weight: Any, bias: Any, _training: bool, _momentum: float, eps: float
    ) -> Any:
        return norm(x, mean, var, weight, bias, False, 0.0, eps)

    functional.batch_norm = fixed
    functional.dropout = lambda x, *_rest, **_options: x
    try:
        yield
    finally:
        functional.batch_norm, functional.dropout = norm, dropout


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    with join_group() as group:
        split = split_simulated(folder.parent / "scans", test_fold=0)
        train, validation = (load_samples(part, CONFIG.preprocess) for part in (split.train, split.validation))
        with nothing_depends_on_the_share():
            fit(CONFIG, train, validation, folder / "exact")
        progress = fit(CONFIG, train, validation, folder / "usual")
        (folder / f"ended-{group.rank}").write_text(f"{progress}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
