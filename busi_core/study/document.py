"""reproduction.json -> docs/reproduction.md: the leak, the table, the contradictions; figures only."""

from collections.abc import Mapping, Sequence
from typing import Any

from busi_core.recipes.catalogue import RECIPES
from busi_core.recipes.contradictions import find_contradictions

SHOWN = ("lesion Dice", "pooled Dice", "pooled IoU", "pixel accuracy", "AUC malignant against benign")


def format_reproduction(study: Mapping[str, Any]) -> str:
    """The whole page as markdown, from what `reproduce.read_study` gives; it is whole with nothing trained yet too."""
    parts = [
        "# The published systems on honest splits",
        "Written by `busi reproduce` from `reproduction.json`; recipes in `busi_core/recipes/`. Test: fold 0 "
        "of BUSI, which holds no copy of a training scan. 95 % bootstrap intervals over scans. Where a row says so, "
        "our figures come from smaller images and fewer epochs than printed: read a row with its own size and epochs.",
        _papers(),
        "## The price of a leak",
        *_leak_parts(study.get("leak", [])),
        "## Printed beside ours",
        _table(study),
        *_printed_parts(study.get("rows", [])),
        "## What in these papers cannot be true, or is missing",
        _contradictions(),
    ]
    return "\n\n".join(parts) + "\n"


def format_figure(value: Mapping[str, float | None] | None) -> str:
    """'0.769 (0.703-0.828)'; 'n/a' for what is not defined."""
    if not value or value["estimate"] is None:
        return "n/a"
    if value["low"] is None or value["high"] is None:
        return f"{value['estimate']:.3f}"
    return f"{value['estimate']:.3f} ({value['low']:.3f}-{value['high']:.3f})"


def format_budget(row: Mapping[str, Any]) -> str:
    """'128 px, 12 of 50 epochs, 0.2 h, 2 CPU cores (x86_64)': of as many as the recipe has, over all its stages."""
    whole = sum(stage.epochs for stage in RECIPES[row["recipe"]].stages)
    return f"{row['size']} px, {row['epochs']} of {whole} epochs, {row['hours']:.2f} h, {row['hardware']}"


def format_epochs(leak: Mapping[str, Any]) -> str:
    """'8 epochs', or '8 to 12 epochs' where the runs of a leak experiment were cut at different ones."""
    fewest, most = min(leak["epochs"]), max(leak["epochs"])
    return f"{most} epochs" if fewest == most else f"{fewest} to {most} epochs"


def format_hours(leak: Mapping[str, Any]) -> str:
    """'2.27 h in all, 2 CPU cores (x86_64)', and what else its runs have to say."""
    note = f"; {leak['note']}" if leak.get("note") else ""
    return f"{leak['hours']:.2f} h in all, {leak['hardware']}{note}"


def leak_caution(leak: Mapping[str, Any]) -> str:
    """What a reader must know of a leak measured in a short training; empty where it was as long as printed."""
    printed = RECIPES[leak["recipe"]].final.epochs
    if max(leak["epochs"]) >= printed:
        return ""
    return (
        f"Trained for {max(leak['epochs'])} of {printed} epochs: a leak pays by memorising, which takes longer, so "
        "that the printed length may well buy more than what is shown here."
    )


def _papers() -> str:
    titles = {recipe.paper: recipe.title for recipe in RECIPES.values() if recipe.paper}
    return "\n".join(
        ["| paper | title |", "|---|---|", *(f"| {paper} | {titles[paper]} |" for paper in sorted(titles))]
    )


def _leak_parts(leaks: Sequence[Mapping[str, Any]]) -> list[str]:
    if not leaks:
        return ["Not run here. Command: `busi reproduce --budget cpu`."]
    parts = [
        "The same test files, read by two models: one trained beside copies of them, as a random split of files has, "
        "one without. Same number of images of each class, same first weights, same epochs. 'Files without one' is the "
        "control, where two trainings differ by chance alone; what counts is the gain of the copies beyond it. The "
        "interval draws seeds, and scans within them."
    ]
    for leak in leaks:
        parts.append(
            f"### {leak['recipe']}\n\n{leak['files']} test files over seeds {', '.join(map(str, leak['seeds']))}, "
            f"{leak['files_with_copy']} with a copy in the leaky training part. {leak['size']} px, "
            f"{format_epochs(leak)}, {format_hours(leak)}. {leak_caution(leak)}".rstrip()
        )
        lines = [
            "| figure | on | split by scan | random split | what the leak buys | each seed |",
            "|---|---|---|---|---|---|",
        ]
        for effect in leak["effects"]:
            gain, seeds = effect["difference"], ", ".join(_signed(value) for value in effect["per_seed"])
            lines.append(
                f"| {effect['figure']} | {effect['subset']} ({effect['files']}) | {_number(effect['by_scan'])} | "
                f"{_number(effect['random'])} | {_signed(gain['estimate'])} ({_signed(gain['low'])} to "
                f"{_signed(gain['high'])}) | {seeds} |"
            )
        parts.append("\n".join(lines))
    return parts


def _table(study: Mapping[str, Any]) -> str:
    lines = ["| recipe | paper | " + " | ".join(SHOWN) + " | how |", "|---|---|" + "---|" * (len(SHOWN) + 1)]
    for row in study.get("rows", []):
        lines.append(_row(row))
    empty, product = study.get("empty_mask"), study.get("product")
    if empty:
        cells = " | ".join(format_figure(empty.get(name)) for name in SHOWN)
        lines.append(f"| a mask that is always empty | | {cells} | no model |")
    if product:
        cells = " | ".join(format_figure(product["figures"].get(name)) for name in SHOWN)
        sets = " and ".join(product["data_sets"])
        lines.append(
            f"| **this project, {product['version']}** | | {cells} | {product['size']} px, {product['epochs']} epochs, "
            f"{sets} |"
        )
        lines += ["", "'This project' is the version that was in service when the study ran; newer ones are not in it."]
    return "\n".join(lines)


def _row(row: Mapping[str, Any]) -> str:
    if row["state"] != "trained":
        why = f" {row['note']}" if row["note"] else ""
        return (
            f"| {row['recipe']} | {row['paper']} |"
            + " |" * len(SHOWN)
            + f" not trained here.{why} `{row['command']}` |"
        )
    cells = " | ".join(format_figure(row["figures"].get(name)) for name in SHOWN)
    start = "; printed: ImageNet, here: random" if row["printed_start"] == "ImageNet" else ""
    note = f"; {row['note']}" if row["note"] else ""
    return f"| {row['recipe']} | {row['paper']} | {cells} | {format_budget(row)}{start}{note} |"


def _printed_parts(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = ["| recipe | figure | printed | ours |", "|---|---|---|---|"]
    for row in rows:
        for name, printed in row["printed"].items():
            ours = format_figure(row["figures"].get(name)) if row["state"] == "trained" else "not trained here"
            lines.append(f"| {row['recipe']} | {name} | {printed:.4g} | {ours} |")
    if len(lines) == 2:
        return []
    return ["### The same figure, as printed and as measured here", "\n".join(lines)]


def _contradictions() -> str:
    lines = ["| paper | printed | what follows | |", "|---|---|---|---|"]
    lines += [f"| {c.paper} | {c.printed} | {c.arithmetic} | {c.kind} |" for c in find_contradictions()]
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


def _signed(value: float | None) -> str:
    return "n/a" if value is None else f"{value:+.3f}"
