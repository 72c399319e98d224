"""U16, U18: what a file says of its patient reaches no result, log, warning, message or temporary file.

The name of a file is the user's own word for it: it stands in the record and in the names of results, and nowhere else.
"""

import io
import json
import logging
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pypdf
import pytest
from encoders import compressed, jpeg_2000
from files import dicom, png_chunk, region, save
from PIL import Image, PngImagePlugin
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless

from busi_core.cli import main
from busi_core.errors import InvalidImageError
from busi_core.findings import read_finding
from busi_core.imaging.decode import decode_image
from busi_core.imaging.phantom import simulate_scan
from busi_core.imaging.preprocess import upsample
from busi_core.report import Report, ReportPictures, ReportScan, reading_record, report_json
from busi_core.report_pdf import draw_report
from busi_core.service import Analyser
from busi_core.types import Diagnosis

NAME, NUMBER, BORN = "Qwzyxa^Planted", "QWZ-7734", "19470817"
SPELLINGS = [text.encode(code) for text in ("Qwzyxa", "qwzyxa", "QWZ-7734", BORN) for code in ("utf-8", "utf-16-le")]
SCAN = simulate_scan(Diagnosis.BENIGN, seed=3, height=96, width=128).grey


def planted_dicom(data: bytes) -> bytes:
    """The same file, with a patient wherever DICOM has room for one."""
    dataset = pydicom.dcmread(io.BytesIO(data))
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = NAME, NUMBER, BORN
    dataset.OtherPatientNames, dataset.ImageComments, dataset.StudyDescription = NAME, f"{NAME} {BORN}", NAME
    dataset.ReferringPhysicianName, dataset.AccessionNumber, dataset.StudyID = NAME, NUMBER, NUMBER
    dataset.private_block(0x0009, NUMBER, create=True).add_new(1, "LO", NAME)
    if "SequenceOfUltrasoundRegions" in dataset:
        dataset.SequenceOfUltrasoundRegions[0].add_new(0x00204000, "LT", NAME)
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def planted_picture(format_name: str) -> bytes:
    """A picture with a patient in EXIF, in a comment and in text chunks."""
    exif = Image.Exif()
    for tag, value in {0x010E: NAME, 0x013B: NUMBER, 0x8298: BORN}.items():  # description, artist, copyright
        exif[tag] = value  # short: a log leaves out what is longer than 32 bytes
    exif[0x9C9C] = NAME.encode("utf-16-le")  # the comment that Windows shows
    exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0" + NAME.encode()
    picture = Image.fromarray(SCAN)
    if format_name == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_text("Patient", NAME)
        text.add_text("Born", BORN, zip=True)
        text.add_itxt("Number", NUMBER)
        data = save(picture, "PNG", exif=exif, pnginfo=text)
        return data[:33] + png_chunk(b"tEXt", b"Name\0" + NAME.encode()) + data[33:]
    return save(picture, format_name, exif=exif, **({"comment": NAME} if format_name == "JPEG" else {}))


FILES = {
    "explicit.dcm": planted_dicom(dicom(SCAN, SequenceOfUltrasoundRegions=[region()])),
    "implicit.dcm": planted_dicom(dicom(SCAN, syntax=ImplicitVRLittleEndian)),
    "deflated.dcm": planted_dicom(dicom(SCAN, syntax=DeflatedExplicitVRLittleEndian)),
    "jpeg 2000.dcm": planted_dicom(compressed(SCAN, JPEG2000Lossless, jpeg_2000(SCAN))),
    "scan.png": planted_picture("PNG"),
    "scan.jpg": planted_picture("JPEG"),
    "scan.tif": planted_picture("TIFF"),
    "scan.webp": planted_picture("WEBP"),
}
DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "whole": lambda data: data,
    "cut short": lambda data: data[: len(data) * 3 // 4],
    "cut in the header": lambda data: data[: len(data) // 12],
    "zeros in the middle": lambda data: data[:300] + bytes(60) + data[360:],
}


def names_nobody(content: bytes) -> bool:
    return not any(spelling in content for spelling in SPELLINGS)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder of the process's own."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


@pytest.mark.parametrize("name", FILES)
def test_the_patient_is_truly_in_the_file(name: str) -> None:
    """Or the tests below would prove nothing; deflated text cannot be searched for."""
    assert name == "deflated.dcm" or not names_nobody(FILES[name])


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", FILES)
def test_decoding_names_nobody_in_logs_warnings_or_messages(
    name: str, damage: str, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder, temporary: Path
) -> None:
    """U16. Pillow's log at DEBUG holds every tag of a TIFF; pydicom logs what it finds odd."""
    caplog.set_level(logging.DEBUG)
    said = ""
    try:
        image = decode_image(DAMAGE[damage](FILES[name]))
        assert names_nobody(repr(vars(image)).encode())
    except InvalidImageError as error:
        said = f"{error} {error!r} {error.__cause__!r}"
    warned = " ".join(str(warning.message) for warning in recwarn)
    assert names_nobody(f"{said} {caplog.text} {warned}".encode())
    assert not list(temporary.iterdir())


def odd_dicom(keyword: str) -> bytes:
    """A file with a patient's name where pydicom expects a word or number of the standard, and so repeats it."""
    content = dicom(SCAN, **{keyword: "111111"})
    return content.replace(b"111111", b"Qwzyxa")


READ_IN_A_PROCESS = """
import logging, pathlib, sys
logging.basicConfig(level=logging.DEBUG)
from busi_core.errors import InvalidImageError
from busi_core.imaging.decode import decode_image
from busi_core.managed.patient_tags import read_patient_tags
for path in sys.argv[1:]:
    data = pathlib.Path(path).read_bytes()
    read_patient_tags(data, salt=b"salt")
    try:
        decode_image(data)
    except InvalidImageError:
        pass
print("read")
"""


@pytest.mark.parametrize("keyword", ["SpecificCharacterSet", "NumberOfFrames"])
def test_what_pydicom_warns_of_reaches_neither_log_nor_screen(keyword: str, tmp_path: Path) -> None:
    """U16. In a process of its own: pytest itself sets filters for warnings, and pydicom's log when it is imported."""
    (tmp_path / "scan.dcm").write_bytes(odd_dicom(keyword))
    command = [sys.executable, "-W", "always", "-c", READ_IN_A_PROCESS, str(tmp_path / "scan.dcm")]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout == "read\n"
    assert names_nobody(ended.stderr.encode())


def test_no_result_of_the_command_line_names_the_patient(
    weights_dir: Path,
    tmp_path: Path,
    temporary: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """U16. Masks, heat maps, records, what is printed and logged."""
    caplog.set_level(logging.DEBUG)
    (tmp_path / "scans").mkdir()
    for name, data in FILES.items():
        (tmp_path / "scans" / name.replace(".", " as ").replace(" as dcm", ".dcm")).write_bytes(data)
        (tmp_path / "scans" / f"{name.replace('.', ' ')}.png").write_bytes(data)
        (tmp_path / "scans" / f"{name.replace('.', ' ')} damaged.dcm").write_bytes(data[: len(data) // 2])
    assert main(["analyse", str(tmp_path / "scans"), "--out", str(tmp_path / "out")]) == 1
    results = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(results) >= 3 * len(FILES)
    assert all(names_nobody(path.read_bytes()) and names_nobody(str(path).encode()) for path in results)
    printed = capfd.readouterr()
    assert names_nobody(f"{caplog.text}{printed.out}{printed.err}".encode())
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("name", FILES)
def test_no_report_names_the_patient_unless_typed_in(name: str, analyser: Analyser) -> None:
    """U16. PDF and JSON."""
    analysis = analyser.analyse(FILES[name])
    finding = read_finding(analysis)
    image = analysis.image
    evidence = upsample(analysis.heatmaps["benign"].evidence, image.height, image.width)

    def report(subject: str) -> Report:
        record = reading_record(analysis, finding, file="scan 1", taught=False)
        pictures = ReportPictures(image.rgb, finding.lesion_mask, None, evidence, "benign")
        return Report([ReportScan(record, lambda: pictures)], "tiny", "2026-11-20", subject)

    def words(pdf: bytes) -> bytes:
        reader = pypdf.PdfReader(io.BytesIO(pdf))
        return f"{reader.metadata} {[page.extract_text() for page in reader.pages]}".encode()

    pdf = draw_report(report(""))
    assert names_nobody(pdf)
    assert names_nobody(words(pdf))
    assert names_nobody(report_json(report("")))
    typed = report("Qwzyxa")
    assert not names_nobody(words(draw_report(typed)))
    assert not names_nobody(report_json(typed))


HOSTILE_NAMES = [
    "../../x.png",
    "a" * 251 + ".png",
    "\u202egnp.scan.png",
    "скан 😀.png",
    "<script>.png",
    "x;rm -rf $HOME.png",
]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_name_is_data_and_never_a_path(name: str, analyser: Analyser) -> None:
    """U18. decode_image takes no name at all; a record repeats it as it was given."""
    analysis = analyser.analyse(FILES["scan.png"])
    record = reading_record(analysis, read_finding(analysis), file=name, taught=False)
    assert json.loads(json.dumps(record))["file"] == name
    np.testing.assert_array_equal(analysis.image.grey, SCAN)
