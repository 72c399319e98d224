"""The report's font, and text as it can be shown: what the font lacks becomes its code point, as in [U+4E2D]."""

import importlib.util
import threading
import unicodedata
from functools import cache
from pathlib import Path

from reportlab import rl_config
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont

_registering = threading.Lock()


def printable(text: str) -> str:
    """Text that the report's font can show: other characters, and those that steer text, as their code points.

    Runs written from right to left are turned round, as reportlab draws in the order it is given.
    """
    glyphs = _glyphs()
    shown: list[str] = []
    for character in text:
        steers = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
        if steers or ord(character) not in glyphs:
            shown.append(f"[U+{ord(character):04X}]")
        else:
            shown.append(character)
    return _turn_round("".join(shown))


def _turn_round(text: str) -> str:
    """Reverse each run of right-to-left letters with the spaces between them, so that it reads right on paper."""
    turned: list[str] = []
    run: list[str] = []
    for character in text:
        direction = unicodedata.bidirectional(character)
        if direction in ("R", "AL", "NSM") or (run and direction in ("WS", "CS")):
            run.append(character)
            continue
        turned += [*_reversed_run(run), character]
        run = []
    return "".join(turned + _reversed_run(run))


def _reversed_run(run: list[str]) -> list[str]:
    end = max((i for i, c in enumerate(run, start=1) if unicodedata.bidirectional(c) not in ("WS", "CS")), default=0)
    return [*reversed(run[:end]), *run[end:]]


def fit(text: str, font: str, size: float, width: float) -> str:
    """Cut a line in the middle until it fits: both ends of a file name matter."""
    if pdfmetrics.stringWidth(text, font, size) <= width:
        return text
    kept = min(len(text), int(width / size * 3))
    while kept > 4:
        kept -= 1
        cut = f"{text[: kept - kept // 2]}...{text[-(kept // 2) :]}"
        if pdfmetrics.stringWidth(cut, font, size) <= width:
            return cut
    return ""


@cache
def font_files() -> tuple[Path, Path]:
    """DejaVu Sans (Latin, Greek, Cyrillic, Hebrew, Arabic) of matplotlib, else reportlab's own Vera (Latin)."""
    for package, folder, names in (
        ("matplotlib", "mpl-data/fonts/ttf", ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf")),
        ("reportlab", "fonts", ("Vera.ttf", "VeraBd.ttf")),
    ):
        found = importlib.util.find_spec(package)  # finds matplotlib without loading it
        if found is None or found.origin is None:
            continue
        regular, bold = (Path(found.origin).parent / folder / name for name in names)
        if regular.is_file() and bold.is_file():
            return regular, bold
    raise RuntimeError("reportlab lacks its own fonts; install it again")


def register_fonts() -> tuple[str, str]:
    """Names of the regular and the bold face, registered once."""
    with _registering:
        rl_config.useA85 = 0  # pictures as bytes: as text they are a quarter larger
        for name, file in zip(("Report", "Report-Bold"), font_files(), strict=True):
            if name not in pdfmetrics.getRegisteredFontNames():
                pdfmetrics.registerFont(TTFont(name, str(file)))
    return "Report", "Report-Bold"


@cache
def _glyphs() -> frozenset[int]:
    """Code points that both faces can show."""
    return frozenset.intersection(*(frozenset(pdfmetrics.getFont(name).face.charToGlyph) for name in register_fonts()))
