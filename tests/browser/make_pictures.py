"""Makes the pictures of docs/admin.md: uv run python tests/browser/make_pictures.py [FOLDER] [WIDTH HEIGHT]

It walks the way of docs/admin.md with a zip of simulated scans, which show no patient, and photographs each step. Of
the real scans under BUSI_DATA_ROOT only the gate reads some; the pictures show its figures and no scan. To take some
minutes and not an hour, what is promoted is the project's own version, in place of the one before it, and what is
refused is a network that learnt nothing.
"""

import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/unit"), str(ROOT / "tests/jobs"), str(ROOT / "tests/browser")]

import cv2  # noqa: E402
from admin_walk import PEOPLE, AdminWalk, environment, write_secrets  # noqa: E402
from app_server import REPOSITORY, start_server  # noqa: E402
from find_chromium import CHROMIUM_FLAGS, find_chromium  # noqa: E402
from oidc_provider import Provider  # noqa: E402
from PIL import Image  # noqa: E402
from playwright.sync_api import Page, sync_playwright  # noqa: E402
from test_admin_walk import rules_for_few_scans  # noqa: E402
from uploads import pack  # noqa: E402
from versions import write_version  # noqa: E402
from workshop import kill  # noqa: E402

from busi_core.imaging.encode import mask_png  # noqa: E402
from busi_core.imaging.phantom import simulate_scan  # noqa: E402
from busi_core.locks import is_held  # noqa: E402
from busi_core.registry import put_into_service, read_registry  # noqa: E402
from busi_core.settings import PROJECT_ROOT, Settings, read_settings  # noqa: E402
from busi_core.types import Diagnosis  # noqa: E402

HEIGHT_PX, WIDTH_PX = 300, 380
UPLOADED = 12  # scans of each class
UNTAUGHT = "untaught"
PICTURE_WIDTH_PX = 1000


def scan_files(diagnosis: Diagnosis, seed: int, stem: str, *, text: str = "") -> dict[str, bytes]:
    """A simulated scan and its mask, with a scanner's writing in a corner if asked for."""
    seed += 10_000 * list(Diagnosis).index(diagnosis)  # one seed is one breast
    scan = simulate_scan(diagnosis, seed=seed, height=HEIGHT_PX, width=WIDTH_PX)
    grey = scan.grey.copy()
    if text:
        cv2.putText(grey, text, (14, 26), cv2.FONT_HERSHEY_SIMPLEX, 0.6, 240, 1, cv2.LINE_AA)
    image = cv2.imencode(".png", grey)[1].tobytes()
    return {f"{diagnosis}/{stem}.png": image, f"{diagnosis}/{stem}_mask.png": mask_png(scan.mask)}


def hospital() -> bytes:
    """A zip of simulated scans, with some things in it that the report should find."""
    files: dict[str, bytes] = {}
    for diagnosis in Diagnosis:
        for number in range(UPLOADED):
            text = "LOGIQ E9" if diagnosis is not Diagnosis.NORMAL and number % 4 == 0 else ""
            files |= scan_files(diagnosis, number, f"{diagnosis}-{number:03d}", text=text)
    files["malignant/malignant-900.png"] = files["malignant/malignant-001.png"]
    files["malignant/malignant-900_mask.png"] = files["malignant/malignant-001_mask.png"]
    files["benign/damaged.png"] = files["benign/benign-001.png"][:900]
    return pack(files)


@contextmanager
def browser_page(size: tuple[int, int]) -> Iterator[Page]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=find_chromium(), args=CHROMIUM_FLAGS)
        yield chromium.new_context(viewport={"width": size[0], "height": size[1]}).new_page()
        chromium.close()


def keep_picture(page: Page, target: Path, *, small: bool) -> None:
    """What stands on the screen; as a small WebP for the documents, or whole as it is for a look."""
    page.wait_for_timeout(1200)  # charts and images are drawn
    png = target.with_suffix(".png")
    page.screenshot(path=png)
    if small:
        with Image.open(png) as picture:
            height = round(picture.height * PICTURE_WIDTH_PX / picture.width)
            picture.convert("RGB").resize((PICTURE_WIDTH_PX, height), Image.Resampling.LANCZOS).save(
                target.with_suffix(".webp"), quality=78, method=6
            )
        png.unlink()


def main(folder: Path, size: tuple[int, int], *, small: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    provider = Provider(PEOPLE)
    provider.start()
    with tempfile.TemporaryDirectory() as name, browser_page(size) as page:
        root = Path(name)
        data = {"DATA_ROOT": read_settings().data_root}
        folders = {key: root / key.lower() for key in ("WEIGHTS_DIR", "STATE_DIR")} | data
        folders |= {"PROMOTION_PROTOCOL": root / "promotion.toml", "ENCODER_DIR": read_settings().encoder_dir}
        settings = Settings(device="cpu", **{key.lower(): path for key, path in folders.items()})
        settings.promotion_protocol.write_text(rules_for_few_scans())
        registry = read_registry(PROJECT_ROOT / "weights")
        before = registry.history[-1].before
        for version in (before, registry.in_service):
            shutil.copytree(PROJECT_ROOT / "weights" / version, settings.weights_dir / version)
        write_version(settings.weights_dir, UNTAUGHT)
        put_into_service(settings.weights_dir, before)
        (root / "hospital-2026.zip").write_bytes(hospital())
        server = start_server(
            REPOSITORY / "app.py", settings=environment(folders, write_secrets(root / "secrets.toml", provider))
        )
        try:
            walk = AdminWalk(page, server.address, lambda step: keep_picture(page, folder / step, small=small))
            walk_through(walk, root / "hospital-2026.zip", before, registry.in_service)
        finally:
            server.stop()
            provider.stop()
            for lock in (settings.state_dir / "workers").glob("*.lock"):
                if is_held(lock):
                    kill(int(lock.read_text()))


def walk_through(walk: AdminWalk, archive: Path, before: str, candidate: str) -> None:
    walk.sign_in()
    walk.upload(archive)
    walk.look_at("text burned in")
    walk.page.get_by_text(re.compile("^I looked at the")).click()
    walk.accept("hospital-2026")
    fields = {"Images a step": "8", "Epochs": "4", "Size (px)": "128", "Learning rate": "0.0001"}
    walk.order("2026.12-a", "hospital-2026", fields)
    walk.watch("2026.12-a")
    walk.judge(UNTAUGHT, photo="verdict-worse")
    walk.judge(candidate)
    walk.promote(candidate, "no worse, and a better ranking of malignant scans")
    walk.read_a_scan(candidate)
    walk.roll_back(before)
    walk.open_audit()


if __name__ == "__main__":
    where = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs/images/admin"
    width, height = (int(sys.argv[2]), int(sys.argv[3])) if len(sys.argv) > 3 else (1440, 900)
    main(where, (width, height), small=len(sys.argv) < 2)
