"""Folders of scans -> records and truths; a folder that breaks a rule is refused with every file named at once."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from busi_core.data.dataset import load_samples
from busi_core.data.records import Record, is_mask_name, natural_key, read_bus_bra, read_busi, read_truth
from busi_core.errors import DatasetError
from busi_core.imaging.preprocess import PreprocessSpec
from busi_core.types import Diagnosis

HEIGHT, WIDTH = 72, 96
SPEC = PreprocessSpec(side=64, fit="pad", channels=1, mean=0.5, std=0.5)


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def scan_pixels(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)


def square(left: int, top: int, *, side: int = 10, value: int = 255) -> np.ndarray:
    """A mask with one white square."""
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
    pixels[top : top + side, left : left + side] = value
    return pixels


@pytest.fixture
def busi(tmp_path: Path) -> Path:
    """A folder in BUSI's layout, with its oddities: several masks, an RGBA mask, RGB masks of normals."""
    folder = tmp_path / "busi"
    for name in ("benign (1)", "benign (2)", "benign (10)", "malignant (1)", "normal (1)"):
        save(folder / name.split()[0] / f"{name}.png", scan_pixels())
    save(folder / "benign/benign (1)_mask.png", square(0, 0))
    save(folder / "benign/benign (1)_mask_1.png", square(40, 20))
    save(folder / "benign/benign (1)_mask_2.png", square(45, 25))
    opaque = np.dstack([square(30, 30)] * 3 + [np.full((HEIGHT, WIDTH), 255, np.uint8)])
    save(folder / "benign/benign (2)_mask.png", opaque)
    save(folder / "benign/benign (10)_mask.png", square(5, 5))
    save(folder / "malignant/malignant (1)_mask.png", square(5, 5) > 0)
    save(folder / "normal/normal (1)_mask.png", np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    return folder


@pytest.fixture
def bus_bra(tmp_path: Path) -> Path:
    """A folder in BUS-BRA's layout with three images of two cases."""
    folder = tmp_path / "bus-bra"
    for name in ("0001-l", "0001-r", "0002-s"):
        save(folder / f"Images/bus_{name}.png", scan_pixels())
        save(folder / f"Masks/mask_{name}.png", square(5, 5))
    (folder / "bus_data.csv").write_text(
        "ID,Case,Histology,Pathology,BIRADS,Device,Side\n"
        "bus_0001-l,1,Cyst,benign,2,GE LOGIQ,left\n"
        "bus_0001-r,1,Cyst,benign,3,GE LOGIQ,right\n"
        "bus_0002-s,2,IDC,malignant,5,Toshiba,left\n"
    )
    (folder / "5-fold-cv.csv").write_text("ID,kFold\nbus_0001-l,1\nbus_0001-r,1\nbus_0002-s,3\n")
    return folder


def truth_of(records: list[Record], name: str) -> np.ndarray:
    return read_truth(next(record for record in records if record.name == name), HEIGHT, WIDTH)


def test_images_come_by_class_and_in_the_order_of_their_numbers(busi: Path) -> None:
    records = read_busi(busi)
    assert [record.name for record in records] == [
        *("normal (1)", "benign (1)", "benign (2)", "benign (10)", "malignant (1)")
    ]
    assert [record.id for record in records][:2] == ["busi/normal (1)", "busi/benign (1)"]
    assert Counter(record.diagnosis for record in records)[Diagnosis.BENIGN] == 3


def test_the_truth_is_the_union_of_all_masks(busi: Path) -> None:
    expected = (square(0, 0) > 0) | (square(40, 20) > 0) | (square(45, 25) > 0)
    assert np.array_equal(truth_of(read_busi(busi), "benign (1)"), expected)


def test_an_opaque_rgba_mask_is_read_by_its_colour(busi: Path) -> None:
    """Two masks of BUSI have alpha 255 everywhere: read by alpha, the whole image would be lesion."""
    assert np.array_equal(truth_of(read_busi(busi), "benign (2)"), square(30, 30) > 0)


def test_a_one_bit_mask_is_read(busi: Path) -> None:
    assert np.array_equal(truth_of(read_busi(busi), "malignant (1)"), square(5, 5) > 0)


def test_a_normal_has_no_lesion_pixel_with_and_without_a_mask_file(busi: Path) -> None:
    assert not truth_of(read_busi(busi), "normal (1)").any()
    (busi / "normal/normal (1)_mask.png").unlink()
    assert not truth_of(read_busi(busi), "normal (1)").any()


def test_a_broken_folder_gives_one_error_that_names_every_file(busi: Path) -> None:
    (busi / "benign/benign (10)_mask.png").unlink()
    save(busi / "malignant/malignant (7)_mask.png", square(0, 0))
    (busi / "normal/normal (1).png").unlink()
    with pytest.raises(DatasetError) as caught:
        read_busi(busi)
    for said in (
        *("benign/benign (10).png (no mask)", "malignant/malignant (7)_mask.png (mask without its image)"),
        *("normal/ (no image)", "normal/normal (1)_mask.png"),
    ):
        assert said in caught.value.problem


def test_a_folder_that_is_not_there_is_an_error_and_no_crash(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="There is no folder"):
        read_busi(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        pytest.param(np.zeros((HEIGHT, WIDTH + 1), np.uint8), "97 x 72 pixels, its image 96 x 72", id="another size"),
        pytest.param(square(0, 0, value=255) // 2 + square(9, 9) // 3, "not binary", id="greys"),
        pytest.param(scan_pixels(), "not binary", id="a scan"),
    ],
)
def test_a_mask_that_does_not_fit_is_an_error_and_never_a_wrong_truth(
    busi: Path, pixels: np.ndarray, said: str
) -> None:
    """U22."""
    save(busi / "benign/benign (1)_mask_1.png", pixels)
    with pytest.raises(DatasetError, match=said) as caught:
        truth_of(read_busi(busi), "benign (1)")
    assert "benign (1)_mask_1.png" in caught.value.problem


@pytest.mark.parametrize("value", [1, 127, 255])
def test_a_mask_of_two_values_outlines_the_higher_one_whatever_it_is(busi: Path, value: int) -> None:
    """U22: masks exported as 0 and 1 look black, but are no empty masks."""
    save(busi / "benign/benign (10)_mask.png", square(5, 5, value=value))
    assert np.array_equal(truth_of(read_busi(busi), "benign (10)"), square(5, 5) > 0)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n cut off"])
def test_a_mask_that_is_no_image_is_named(busi: Path, content: bytes) -> None:
    """U22."""
    (busi / "benign/benign (10)_mask.png").write_bytes(content)
    with pytest.raises(DatasetError, match=r"benign \(10\)_mask.png.* cannot be read"):
        truth_of(read_busi(busi), "benign (10)")


def test_a_mask_that_went_away_after_listing_is_named(busi: Path) -> None:
    """U22."""
    records = read_busi(busi)
    (busi / "benign/benign (10)_mask.png").unlink()
    with pytest.raises(DatasetError, match=r"benign \(10\)_mask.png"):
        truth_of(records, "benign (10)")


def test_bus_bra_tables_give_case_fold_birads_and_device(bus_bra: Path) -> None:
    first, second, third = read_bus_bra(bus_bra)
    assert first == Record(
        id="bus-bra/bus_0001-l",
        image=bus_bra / "Images/bus_0001-l.png",
        masks=(bus_bra / "Masks/mask_0001-l.png",),
        diagnosis=Diagnosis.BENIGN,
        group="bus-bra/case 1",
        fold=1,
        birads=2,
        device="GE LOGIQ",
    )
    assert second.group == first.group
    assert (third.group, third.fold, third.diagnosis) == ("bus-bra/case 2", 3, Diagnosis.MALIGNANT)


def replace_in(path: str, old: str, new: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        file = folder / path
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(lambda f: (f / "bus_data.csv").unlink(), "bus_data.csv", id="table missing"),
        pytest.param(lambda f: (f / "5-fold-cv.csv").unlink(), "5-fold-cv.csv", id="folds missing"),
        pytest.param(lambda f: (f / "bus_data.csv").write_text(""), "bus_data.csv", id="table empty"),
        pytest.param(lambda f: (f / "bus_data.csv").write_bytes(b"ID\xff\xfe"), "bus_data.csv", id="not text"),
        pytest.param(replace_in("bus_data.csv", "BIRADS", "Birads"), "lacks BIRADS", id="another column"),
        pytest.param(replace_in("5-fold-cv.csv", "kFold", "fold"), "lacks kFold", id="another fold column"),
        pytest.param(
            replace_in("bus_data.csv", "malignant,5", "unclear,5"), r"bus_0002-s \(.*'unclear'", id="pathology"
        ),
        pytest.param(replace_in("bus_data.csv", "benign,3", "benign,4a"), r"bus_0001-r \(.*'4a'", id="BI-RADS"),
        pytest.param(replace_in("5-fold-cv.csv", "0002-s,3", "0002-s,three"), r"bus_0002-s \(.*'three'", id="fold"),
        pytest.param(replace_in("5-fold-cv.csv", "0002-s,3", "0002-s,9"), r"bus_0002-s \(.*'9'", id="no such fold"),
        pytest.param(replace_in("5-fold-cv.csv", "bus_0002-s,3\n", ""), r"bus_0002-s \(no fold", id="no fold"),
        pytest.param(replace_in("5-fold-cv.csv", "0002-s,3", "0002-s"), r"bus_0002-s \(", id="fold row cut short"),
        pytest.param(replace_in("bus_data.csv", "2,IDC,malignant,5,Toshiba,left", "2"), "bus_0002-s", id="row cut"),
        pytest.param(replace_in("bus_data.csv", "bus_0001-r", "bus_0001-l"), r"bus_0001-l \(twice", id="listed twice"),
        pytest.param(
            lambda f: (f / "Images/bus_0001-r.png").unlink(), r"Images/bus_0001-r.png \(missing", id="image missing"
        ),
        pytest.param(
            lambda f: (f / "Masks/mask_0001-r.png").unlink(), r"Masks/mask_0001-r.png \(missing", id="mask missing"
        ),
    ],
)
def test_a_broken_bus_bra_folder_is_refused_by_what_is_wrong(
    bus_bra: Path, change: Callable[[Path], object], said: str
) -> None:
    change(bus_bra)
    with pytest.raises(DatasetError, match=said):
        read_bus_bra(bus_bra)


def test_every_fault_of_a_bus_bra_folder_is_named_at_once(bus_bra: Path) -> None:
    replace_in("bus_data.csv", "malignant,5", "unclear,5")(bus_bra)
    (bus_bra / "Masks/mask_0001-l.png").unlink()
    (bus_bra / "Images/bus_0001-r.png").unlink()
    with pytest.raises(DatasetError) as caught:
        read_bus_bra(bus_bra)
    for said in ("bus_0002-s", "Masks/mask_0001-l.png", "Images/bus_0001-r.png"):
        assert said in caught.value.problem


def test_natural_order_counts_as_a_person_does() -> None:
    names = ["b (10)", "b (2)", "a (3)", "b (1)_x", "b (1)"]
    assert sorted(names, key=natural_key) == ["a (3)", "b (1)", "b (1)_x", "b (2)", "b (10)"]


@pytest.mark.parametrize("name", ["1²2.png", "9" * 5000, "٣ (1).png", ""])
def test_names_with_any_digits_are_sorted(name: str) -> None:
    assert sorted([name, "b (2)", "b (10)"], key=natural_key).index("b (2)") < 2


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        *(("benign (1)_mask", True), ("benign (1)_mask_1", True), ("benign (1)_mask_12", True)),
        *(("A_MASK", True), ("a_Mask_2", True)),
        *(("benign (1)", False), ("mask", False), ("benign_masked", False), ("x_mask_a", False)),
    ],
)
def test_what_counts_as_a_mask_by_its_name(stem: str, expected: bool) -> None:
    assert is_mask_name(stem) is expected


def test_samples_are_the_prepared_scans_with_their_masks_and_columns(busi: Path) -> None:
    records = read_busi(busi)
    samples = load_samples(records, SPEC)
    assert len(samples) == 5
    assert samples.images.shape == samples.masks.shape == (5, 1, 64, 64)
    assert samples.images.dtype == samples.masks.dtype == torch.uint8
    assert samples.labels.tolist() == [0, 1, 1, 1, 2]
    assert samples.ids == tuple(record.id for record in records)
    assert samples.masks.max() == 1
    share = float(samples.masks[4, 0, :48].float().mean())
    assert share == pytest.approx(100 / (HEIGHT * WIDTH), rel=0.2)
    assert not samples.images[:, :, 48:].any(), "96 x 72 fills three quarters of the square"


def test_samples_that_cannot_be_read_are_named_all_at_once(busi: Path) -> None:
    (busi / "benign/benign (2).png").write_bytes(b"not an image")
    save(busi / "benign/benign (10)_mask.png", square(0, 0)[:, :-1])
    with pytest.raises(DatasetError) as caught:
        load_samples(read_busi(busi), SPEC)
    assert "2 files" in caught.value.problem
    assert "benign (2).png" in caught.value.problem
    assert "benign (10)_mask.png" in caught.value.problem


def test_no_samples_at_all_is_an_error() -> None:
    with pytest.raises(DatasetError, match="no image"):
        load_samples([], SPEC)


@pytest.mark.realdata
def test_the_development_part_of_busi_is_what_its_description_says(data_root: Path) -> None:
    records = read_busi(data_root / "busi")
    counts = Counter(record.diagnosis for record in records)
    assert counts == {Diagnosis.BENIGN: 354, Diagnosis.MALIGNANT: 170, Diagnosis.NORMAL: 109}
    for name in ("benign (4)", "benign (54)"):  # one of their masks is RGBA with alpha 255 everywhere
        record = next((record for record in records if record.name == name), None)
        if record is not None:
            with Image.open(record.image) as image:
                assert 0 < read_truth(record, image.height, image.width).mean() < 0.5


@pytest.mark.realdata
def test_the_folds_of_bus_bra_at_hand_are_one_to_three_and_keep_cases_whole(data_root: Path) -> None:
    records = read_bus_bra(data_root / "bus-bra")
    assert len(records) == 1127
    assert {record.fold for record in records} == {1, 2, 3}
    folds_of: dict[str | None, set[int | None]] = {}
    for record in records:
        folds_of.setdefault(record.group, set()).add(record.fold)
    assert all(len(folds) == 1 for folds in folds_of.values())
