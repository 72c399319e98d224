"""What the model says about one scan, beside the viewer: class, flag, size, disagreement."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from html import escape

import streamlit as st

from busi_core import Analyser, Analysis, Diagnosis, EvaluationReport, Finding, ImageWarning
from busi_core.evaluation import band_of
from busi_core.findings import NOT_IN_ONE_REGION, read_opinions
from busi_core.models.checkpoint import ModelCard
from busi_core.report import cutoff_words
from busi_core.worth import say_flagged, say_in_doubt
from pages.components.class_blocks import CLASS_COLOURS, flag_block, score_rows
from pages.components.downloads import ScanOnScreen, show_downloads
from pages.components.limits_panel import chosen_coverage, say_left_out, show_class_set, show_withheld
from pages.components.page import label
from pages.components.serving import get_assessment, worth_of


def show_finding(
    analysis: Analysis,
    finding: Finding,
    scan: ScanOnScreen,
    analyser: Analyser,
    *,
    reports: Sequence[EvaluationReport],
    subjects: dict[str, str],
    on_insist: Callable[[], None],
) -> None:
    """Draw the finding of one scan.

    Args:
        analysis: What the model said.
        finding: The same at the cut-off the reader chose.
        scan: Whose finding it is.
        analyser: Of the version that read it: its flag, and what it knows of its limits.
        reports: The version's evaluations on scans it never saw.
        subjects: The names on the reports of this session's scans, by the scan's id; what is typed goes in.
        on_insist: Called when the reader wants an answer that was withheld.
    """
    st.html(label(" · ".join(scan.title()), css="finding-name"))
    if ImageWarning.NO_CONTRAST in analysis.warnings:
        st.error("No contrast: every pixel has nearly the same grey. The model's answer is not shown; check the file.")
        return
    if analysis.withheld:
        show_withheld(on_insist)
        return
    is_insisted = ImageWarning.INSISTED in analysis.warnings
    if is_insisted:
        st.error(ImageWarning.INSISTED.sentence, icon=":material/block:")
        reports = ()
    elif ImageWarning.UNLIKE in analysis.warnings:
        st.warning(ImageWarning.UNLIKE.sentence)
    if analysis.prediction.probabilities is None:
        st.info("This model outlines lesions only; it gives no class.", icon=":material/info:")
    else:
        st.html(_class_block(analysis))
        if analyser.limits is not None and not is_insisted:
            show_class_set(analysis, analyser.limits, reports)
        _show_flag(analysis, finding, analyser, reports)
    if finding.disagreement:
        st.warning(f"**Findings disagree.** {finding.disagreement} Look again; neither is corrected.")
    st.html(_lesion_block(analysis, finding))
    said_above = (ImageWarning.INSISTED, ImageWarning.UNLIKE)
    others = replace(analysis, warnings=tuple(one for one in analysis.warnings if one not in said_above))
    show_warnings(others, None if is_insisted else analyser.card, cutoff=finding.threshold)
    coverage = chosen_coverage()
    chosen = analysis
    if analyser.limits is not None and analysis.not_ruled_out is not None:
        chosen = replace(analysis, not_ruled_out=analyser.limits.classes_left(analysis.prediction, coverage))
    worth = () if is_insisted else worth_of(analysis.model_version)
    show_downloads(chosen, finding, scan, subjects, coverage=coverage, worth=worth)
    st.html(label(f"Model {analysis.model_version}", css="fine"))


def show_warnings(analysis: Analysis, card: ModelCard | None = None, *, cutoff: float) -> None:
    """What a reader must know about the image before believing the result at a cut-off on the lesion probability; by
    its card, how often that held."""
    for warning in analysis.warnings:
        if warning is ImageWarning.SECOND_OPINION:
            st.info(_say_opinions(analysis, cutoff, card), icon=":material/groups:")
        elif warning is not ImageWarning.NOT_CALIBRATED:  # said beside the size
            st.warning(warning.sentence)


def _say_opinions(analysis: Analysis, cutoff: float, card: ModelCard | None) -> str:
    opinions = read_opinions(analysis, cutoff)
    each = ", ".join(opinion.diagnosis or "no class" for opinion in opinions)
    outlining = sum(opinion.outlines for opinion in opinions)
    verb = "outlines" if outlining == 1 else "outline"
    measured = say_in_doubt(get_assessment(card.version, card.sha256)) if card else ""
    return (
        f"**Second opinion.** The first network was in doubt, so {len(opinions) - 1} more read the scan. Outlined is "
        f"what most of them agree on; each score is their mean. One by one they say {each}, and {outlining} of "
        f"{len(opinions)} {verb} something at a cut-off of {cutoff:.2f}. Heat maps are those of the first. {measured}"
    )


def _class_block(analysis: Analysis) -> str:
    probabilities, diagnosis = analysis.prediction.probabilities or {}, analysis.prediction.diagnosis
    hint = (
        "Of the whole image, not of one region. Scaled on validation scans; not the chance of cancer for this patient."
    )
    return (
        f'<div class="label">Class of the image</div>'
        f'<div class="diagnosis" style="color:{CLASS_COLOURS[diagnosis or Diagnosis.NORMAL]}">{diagnosis}</div>'
        f'<details class="label"><summary title="{escape(hint)}">Model score <span class="hint">?</span></summary>'
        f"<span>{escape(hint)}</span></details>{score_rows(probabilities)}"
    )


def _show_flag(analysis: Analysis, finding: Finding, analyser: Analyser, reports: Sequence[EvaluationReport]) -> None:
    flag = analyser.card.malignancy
    score = (analysis.prediction.probabilities or {})[Diagnosis.MALIGNANT]
    lines = []
    if flag is not None:
        worth = ""
        if ImageWarning.INSISTED not in analysis.warnings:
            worth = say_flagged(flag, reports) + (say_left_out(analysis, analyser, reports) if finding.flagged else "")
        lines.append(flag_block(score, flag.threshold, analysis.prediction.diagnosis, worth))
    band = band_of(reports, score, flag=flag.threshold if flag else None)
    if band is not None:
        scans = sum(report.scans for report in reports)
        malignant = sum(report.counts[Diagnosis.MALIGNANT] for report in reports)
        low, high = (
            f"{edge:.3f}" if flag and edge == flag.threshold else f"{edge:.2f}" for edge in (band.low, band.high)
        )
        said = (
            f"Of the {scans:,} test scans, {band.scans:,} were scored like this (malignant {low} to {high}): "
            f"<b>{band.malignant:,} of {band.scans:,} were malignant</b>. Of all {scans:,} it is {malignant:,} "
            f"({malignant / scans:.0%}): where fewer scans are malignant, so are fewer of those like this."
            if band.scans
            else f"None of the {scans:,} test scans was scored like this."
        )
        lines.append(f'<div class="fine">{said}</div>')
    st.html("".join(lines) or "<span></span>")


def _lesion_block(analysis: Analysis, finding: Finding) -> str:
    image, size = analysis.image, finding.size
    cutoff = escape(cutoff_words(finding.threshold, analysis.lesion_threshold))
    if size is None:
        return f'<div class="label">Lesion</div><div class="size">none at {cutoff}</div>'
    share = f"{finding.lesion_pixels / (image.height * image.width):.1%} of the image"
    unit = finding.unit
    digits = 1 if unit == "mm" else 0
    several = ""
    if size.regions > 1:
        of_all = "" if analysis.prediction.probabilities is None else " The class is of the whole image."
        several = f'<div class="fine">{size.regions} separate regions; the largest is measured.{of_all}</div>'
        share = f"all regions together {share}"
    why = NOT_IN_ONE_REGION if image.regions else "In pixels: the file does not say how large a pixel is."
    uncalibrated = "" if unit == "mm" else f'<div class="fine">{why}</div>'
    return (
        f'<div class="label">Lesion, longest diameter × perpendicular</div>'
        f'<div class="size">{size.longest:.{digits}f} × {size.perpendicular:.{digits}f} {unit}</div>'
        f'<div class="fine">{share}, {cutoff}</div>{uncalibrated}{several}'
    )
