"""DICOM file -> which attributes that can name a patient are filled. Their values are never kept, shown or logged."""

import hashlib
import io
from dataclasses import dataclass

from pydicom.datadict import tag_for_keyword
from pydicom.filereader import dcmread

from busi_core.imaging.dicom import is_dicom
from busi_core.imaging.limits import DAMAGE_ERRORS

# PS3.15 table E.1-1: attributes of the Basic Profile that hold a person, a number or a date of theirs and that
# ultrasound machines fill.
PATIENT_KEYWORDS = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientAddress", "PatientTelephoneNumbers"),
    *("OtherPatientIDs", "OtherPatientNames", "PatientBirthName", "PatientMotherBirthName", "PatientComments"),
    *("AccessionNumber", "StudyID", "StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate"),
    *("InstitutionName", "InstitutionAddress", "ReferringPhysicianName", "PerformingPhysicianName", "OperatorsName"),
)


@dataclass(frozen=True)
class PatientTags:
    """What a file's tags tell, without their values.

    Attributes:
        filled: Keywords of the standard, as in 'PatientName'.
        patient: The same digest for files of one patient in one examination, '' where no number is filled.
        readable: The tags could be read; where not, any may be filled, though the picture is read all the same.
    """

    filled: tuple[str, ...]
    patient: str
    readable: bool = True


def read_patient_tags(data: bytes, *, salt: bytes) -> PatientTags:
    """Which tags of a DICOM file are filled; of any other file none.

    Args:
        data: The whole file.
        salt: Random, made for one examination and then forgotten, so that the digest tells nothing afterwards.
    """
    if not is_dicom(data):
        return PatientTags((), "")
    try:
        dataset = dcmread(
            io.BytesIO(data),
            stop_before_pixels=True,
            specific_tags=[tag for keyword in PATIENT_KEYWORDS if (tag := tag_for_keyword(keyword)) is not None],
        )
        values = {keyword: str(dataset.get(keyword, "")).strip() for keyword in PATIENT_KEYWORDS}
    except DAMAGE_ERRORS:
        return PatientTags((), "", readable=False)
    number = values["PatientID"]
    digest = hashlib.blake2b(number.encode("utf-8", "replace"), key=salt, digest_size=12).hexdigest() if number else ""
    return PatientTags(tuple(keyword for keyword, value in values.items() if value), digest)
