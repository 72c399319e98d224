"""What stands below the panes: each lesion, the class, the heat maps, the report, and keeping a corrected mask."""

import math
from html import escape

import streamlit as st

from busi_core import BusiError, Diagnosis, read_finding
from busi_core.audit import open_audit
from busi_core.comparison import Comparison, HeatmapFit, LesionMatch
from busi_core.corrections import MAX_WHO, keep_correction
from busi_core.metrics.conformal import USUAL_COVERAGE
from busi_core.report import Report, report_json
from busi_core.report_pdf import draw_report
from busi_core.settings import read_settings
from busi_core.types import Analysis, ImageWarning
from pages.components.class_blocks import CLASS_COLOURS, flag_block, score_rows
from pages.components.compare_viewer import EditedMask, ShownReading
from pages.components.downloads import safe_name, safe_stem
from pages.components.finding_panel import show_warnings
from pages.components.page import label, show_error, wide

UNKNOWN = "not stated"


def show_reading(reading: ShownReading, reference_class: Diagnosis | None, *, with_heading: bool) -> None:
    """Lesions, class and heat maps of one reading, side by side.

    Args:
        reading: At the cut-off the reader chose.
        reference_class: What the image is, where that is known.
        with_heading: Name the model, where two stand below each other.
    """
    if with_heading:
        st.html(label(f"Model {reading.analysis.model_version}", css="finding-name"))
    show_warnings(reading.analysis, cutoff=reading.cutoff)
    lesions, classes, heat = st.columns([1.5, 1, 1.35], gap="medium")
    comparison = reading.comparison
    with lesions:
        if reading.analysis.withheld:
            st.html(label("No answer, so there is nothing to compare with the reference.", css="fine"))
        else:
            st.html(lesion_table(comparison, reading.cutoff))
    with classes:
        st.html(class_block(reading.analysis, reference_class))
    with heat:
        if not reading.analysis.withheld:
            st.html(heat_table(comparison))


def lesion_table(comparison: Comparison | None, cutoff: float) -> str:
    """Each lesion of the reference: found or missed, overlap, distance of the borders."""
    title = f'<div class="label">Each lesion of the reference, cut-off {cutoff:.2f}</div>'
    if comparison is None:
        return f'{title}<div class="fine">No reference mask.</div>'
    extra = ""
    if comparison.extra_regions:
        word = "region" if comparison.extra_regions == 1 else "regions"
        extra = (
            f'<div class="fine"><b>{comparison.extra_regions} {word} outlined where the reference has no lesion</b>, '
            f"{comparison.extra_pixels:,} pixels.</div>"
        )
    if comparison.unlisted_lesions:
        extra += f'<div class="fine">{comparison.unlisted_lesions} smaller ones are not listed.</div>'
    if not comparison.lesions:
        said = "No lesion in the reference." + ("" if comparison.extra_regions else " None was outlined.")
        return f'{title}<div class="size">{said}</div>{extra}'
    rows = "".join(_lesion_row(lesion) for lesion in comparison.lesions)
    table = (
        '<table class="plain"><thead><tr><th>Lesion</th><th>Found?</th><th>Dice</th><th>Recall</th>'
        '<th title="95 % of the two borders lie within this many pixels of each other">HD95</th>'
        '<th title="Average distance of the two borders">Mean gap</th><th>Pixels</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )
    return f"{title}{wide(table, 'Each lesion')}{extra}"


def class_block(analysis: Analysis, reference_class: Diagnosis | None) -> str:
    """Reference class and model's class, one above the other."""
    predicted, scores = analysis.prediction.diagnosis, analysis.prediction.probabilities
    truth = reference_class.value if reference_class else UNKNOWN
    if analysis.withheld:
        on_request = "" if ImageWarning.NO_CONTRAST in analysis.warnings else "; Analyse shows it on request"
        said = f"The model gives no answer{on_request}. Reference: {truth}."
        return f'<div class="label">Class</div><div class="fine">{said}</div>'
    if predicted is None or scores is None:
        return f'<div class="label">Class</div><div class="fine">This model gives no class. Reference: {truth}.</div>'
    flag, verdict = "", ""
    if analysis.malignancy_threshold is not None:
        flag = flag_block(scores[Diagnosis.MALIGNANT], analysis.malignancy_threshold, predicted)
    if reference_class is not None:
        same = predicted is reference_class
        verdict = (
            f'<div class="flag {"off" if same else "on"}"><b>{"Same class" if same else "Another class"}</b></div>'
        )
    return (
        f'<div class="label">Class</div><table class="plain pairs"><tbody>'
        f"<tr><td>Reference</td><td><b>{truth}</b></td></tr>"
        f'<tr><td>Model</td><td><b style="color:{CLASS_COLOURS[predicted]}">{predicted.value}</b></td></tr>'
        f'</tbody></table>{verdict}<div class="label spaced">Model score</div>{score_rows(scores)}'
        f"{_set_line(analysis)}{flag}"
    )


def _set_line(analysis: Analysis) -> str:
    """The classes that cannot be ruled out, as Analyse and the report name them; empty without limits."""
    if analysis.not_ruled_out is None:
        return ""
    promise = f"Cannot be ruled out ({USUAL_COVERAGE:.0%} of cases)"
    return f'<div class="label">{promise}</div><div class="set">{" or ".join(analysis.not_ruled_out)}</div>'


def heat_table(comparison: Comparison | None) -> str:
    """Where each heat map's evidence lies."""
    title = '<div class="label">Heat maps (Grad-CAM) and the reference lesion</div>'
    if comparison is None or not any(lesion.pixels for lesion in comparison.lesions):
        return f'{title}<div class="fine">Without a lesion in the reference there is nothing to lie in.</div>'
    rows = "".join(_heat_row(fit) for fit in comparison.heatmaps)
    even = comparison.heatmaps[0].lesion_share if comparison.heatmaps else math.nan
    return (
        f'{title}<table class="plain"><thead><tr><th>Heat map of</th><th>Inside the lesion</th><th>Peak</th></tr>'
        f'</thead><tbody>{rows}</tbody></table><div class="fine">Share of the map\'s energy. An even map '
        f"would have {even:.0%} inside, the lesion's share of the image.</div>"
    )


def show_report(report: Report, *, name: str) -> None:
    """One reading with its reference as a file; each is drawn when it is asked for."""
    position = report.scans[0].record["position"]
    stem = f"{safe_stem(name)} - {position} - {safe_name(report.model_version)}"
    with st.container(horizontal=True, gap="small"):
        for text, make, suffix, kind in (
            ("Report (PDF)", lambda: draw_report(report), "pdf", "application/pdf"),
            ("JSON", lambda: report_json(report), "json", "application/json"),
        ):
            st.download_button(
                text, make, f"{stem}.{suffix}", kind, key=f"compare-{suffix}-{report.model_version}", on_click="ignore"
            )


@st.dialog("Keep the corrected mask for retraining", width="medium", on_dismiss="rerun")
def ask_to_keep(
    edited: EditedMask, readings: list[ShownReading], reference_class: Diagnosis | None, kept_numbers: set[int]
) -> None:
    """Ask who corrected the mask and whether patient text is in the scan, then keep it.

    The number of a mask that was kept goes into `kept_numbers`; once the dialog is closed the browser hears of it.
    """
    reading = next(one for one in readings if one.analysis.model_version == edited.model_version)
    pixels = int(edited.mask.sum())
    place = st.empty()  # gone once it is kept: a second press would keep it twice
    with place.form("keep-correction", clear_on_submit=False, border=False):
        st.html(
            label(
                f"Your mask of {pixels:,} pixels beside that of model {edited.model_version} at cut-off "
                f"{edited.cutoff:.2f}. Kept on this server: the scan's pixels, both masks, your name, the time. "
                "The file's name and tags are not kept.",
                css="fine",
            )
        )
        left, right = st.columns(2)
        who = left.text_input("Your name or initials", max_chars=MAX_WHO, key="correction-who")
        choices = [None, *Diagnosis]
        diagnosis = right.selectbox(
            "Class of the image, in your reading",
            choices,
            index=choices.index(reference_class),
            format_func=lambda one: one.value if one else UNKNOWN,
            key="correction-class",
        )
        sure = st.checkbox(
            "I looked at the whole scan: no patient's name, number or date of birth is burned into it.",
            key="correction-no-text",
        )
        if not st.form_submit_button("Keep it", icon=":material/inventory_2:", type="primary"):
            return
    image = reading.analysis.image
    settings = read_settings()
    audit = open_audit(settings)
    try:
        kept = keep_correction(
            settings.corrections_dir,
            grey=image.grey,
            before=read_finding(reading.analysis, edited.cutoff).lesion_mask,
            after=edited.mask,
            who=who,
            model_version=edited.model_version,
            threshold=edited.cutoff,
            diagnosis=diagnosis,
            no_patient_text=sure,
            audit=audit if audit.path.is_file() else None,  # the log begins with the first sign-in
        )
    except BusiError as error:
        show_error(error)
        return
    place.empty()
    kept_numbers.add(edited.number)
    st.success(f"Kept as case {kept.id}.", icon=":material/check:")


def _lesion_row(lesion: LesionMatch) -> str:
    verdict = "found" if lesion.found else '<b class="missed">missed</b>'
    return (
        f"<tr><td>{lesion.number}</td><td>{verdict}</td><td>{_figure(lesion.counts.dice, 3)}</td>"
        f"<td>{_figure(lesion.counts.recall, 3)}</td><td>{_figure(lesion.hd95_px, 1, ' px')}</td>"
        f"<td>{_figure(lesion.mean_distance_px, 1, ' px')}</td><td>{lesion.pixels:,}</td></tr>"
    )


def _heat_row(fit: HeatmapFit) -> str:
    peak = "no evidence" if fit.peak_inside is None else "inside" if fit.peak_inside else "outside"
    energy = "n/a" if math.isnan(fit.energy_inside) else f"{fit.energy_inside:.0%}"
    return f"<tr><td>{escape(fit.of)}</td><td>{energy}</td><td>{peak}</td></tr>"


def _figure(value: float, digits: int, unit: str = "") -> str:
    return "n/a" if math.isnan(value) else f"{value:.{digits}f}{unit}"
