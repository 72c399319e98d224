"""The report on a data set and the list of versions as lines of plain text; names of files stand there as they are."""

from collections.abc import Sequence

from busi_core.managed.report import AcceptancePlan, InspectionReport, Weight
from busi_core.managed.sets import ManagedSet
from busi_core.managed.summary import count_classes, count_findings, find_cautions, measure_sizes
from busi_core.types import Diagnosis

SHOWN_WEIGHTS = (Weight.NEVER, Weight.RESOLVE, Weight.CONFIRM)  # listed scan by scan; the rest is counted


def format_report(report: InspectionReport) -> list[str]:
    """What is in an upload, what to beware of, and every scan that cannot be kept as it is."""
    lines = [f"{'class':<14}{'scans':>7}{'distinct':>10}{'usable':>8}{'mask files':>12}{'empty masks':>13}"]
    for row in count_classes(report):
        name = row.diagnosis.value if row.diagnosis else "class unknown"
        lines.append(f"{name:<14}{row.scans:>7}{row.distinct:>10}{row.usable:>8}{row.masks:>12}{row.empty:>13}")
        lines += [
            f"    {flag.value}: {share.estimate:.0%} of the distinct scans (95 %: {share.low:.0%}-{share.high:.0%})"
            for flag, share in row.marked
            if share.estimate
        ]
    sizes = measure_sizes(report)
    if sizes:
        small, middle, large = (
            f"{width} x {height}" for width, height in (sizes.smallest, sizes.median, sizes.largest)
        )
        lines.append(f"sizes in pixels: {small} to {large}, in the median {middle}")
    compared = ", ".join(f"{name} ({images} images)" for name, images in report.compared)
    lines.append(f"compared with: {compared or 'nothing, there is no known set here'}")
    for title, names in (
        ("masks without their scan", report.lone_masks),
        ("no images by their names", report.left_out),
    ):
        if names:
            lines.append(f"{title}: {', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}")
    lines += [f"{flag.value}: {count} ({flag.weight.value})" for flag, count in count_findings(report)]
    lines += [f"beware: {caution}" for caution in find_cautions(report)]
    for scan in report.scans:
        lines += [
            f"{scan.name}: {finding.flag.value}. {finding.detail}".rstrip()
            for finding in scan.findings
            if finding.flag.weight in SHOWN_WEIGHTS
        ]
    return lines


def format_plan(plan: AcceptancePlan) -> str:
    """One sentence: how many are kept, and why the rest is not."""
    kept = f"{len(plan.kept)} scans, {len({scan.scan for scan in plan.kept})} distinct"
    reasons = "; ".join(f"{reason} ({count})" for reason, count in plan.reasons().items())
    return f"{kept}. Left out: {reasons or 'nothing'}."


def format_sets(sets: Sequence[ManagedSet]) -> list[str]:
    """One line a version."""
    if not sets:
        return ["There is no accepted data set yet."]
    return [
        f"{managed.id:<54}{managed.count():>6} scans, {managed.distinct} distinct ("
        + ", ".join(f"{managed.count(diagnosis)} {diagnosis.value}" for diagnosis in Diagnosis)
        + f"); {managed.source}; {managed.licence}; {managed.who}, {managed.created}"
        for managed in sets
    ]
