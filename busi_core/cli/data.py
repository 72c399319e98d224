"""Commands about the scans that versions learn from: datasets, splits, hashes."""

import argparse
import sys
from pathlib import Path

from busi_core.cli.terminal import Commands, say, show_count, shown
from busi_core.errors import DatasetError
from busi_core.settings import read_settings


def add_commands(commands: Commands) -> None:
    """Add them to the parser."""
    datasets = commands.add_parser("datasets", help="list the accepted data sets; examine or add one")
    datasets.set_defaults(run=_datasets, source_path=None)
    parts = datasets.add_subparsers(metavar="examine|add", help="without: list them")
    examine = parts.add_parser("examine", help="print the report on a folder or zip; nothing is kept")
    add = parts.add_parser("add", help="print the report, then keep what can be kept as a new version")
    for part in (examine, add):
        part.add_argument("source_path", type=Path, metavar="FOLDER_OR_ZIP", help="as BUSI or BUS-BRA")
        part.set_defaults(name=None)
    add.add_argument("--name", required=True, help="of the data set; part of its id")
    add.add_argument("--source", required=True, help="where the scans come from")
    add.add_argument("--licence", required=True, help="on which terms they may be used")
    add.add_argument("--clean", action="store_true", help="keep only scans without a finding, of copies one")
    add.add_argument(
        "--no-patient-text",
        action="store_true",
        help="you looked: no scan with text or patient tags names a patient; without it such scans are left out",
    )

    splits = commands.add_parser("splits", help="check the committed folds against the scans at hand")
    splits.add_argument("--write", type=Path, metavar="FILE", help="make the folds anew into this file")
    splits.set_defaults(run=_splits)

    hashes = commands.add_parser("hashes", help="write hashes of the scans that taught a version beside its weights")
    hashes.add_argument("version")
    hashes.set_defaults(run=_hashes)


def _datasets(options: argparse.Namespace) -> int:
    from busi_core.access import command_line
    from busi_core.audit import open_audit
    from busi_core.managed.inspection import examine
    from busi_core.managed.intake import open_path
    from busi_core.managed.report import find_unclean, plan_acceptance
    from busi_core.managed.report_text import format_plan, format_report, format_sets
    from busi_core.managed.store import accept, find_damaged, list_sets
    from busi_core.promotion.locked import read_known_scans

    settings = read_settings()
    if options.source_path is None:
        for line in format_sets(list_sets(settings.state_dir)):
            say(shown(line))
        damaged = find_damaged(settings.state_dir)
        for name in damaged:
            print(f"busi: the data set {shown(name)} is damaged. Restore its folder from a backup.", file=sys.stderr)
        return 1 if damaged else 0
    report = examine(open_path(options.source_path), read_known_scans(settings, show_count), show_count)
    for line in format_report(report):
        say(shown(line))
    if options.name is None:
        return 0
    excluded = find_unclean(report) if options.clean else set()
    confirmed = {scan.id for scan in report.scans} if options.no_patient_text else set()
    print(shown(f"kept: {format_plan(plan_acceptance(report, excluded, confirmed))}"))
    managed = accept(
        command_line(),
        report,
        name=options.name,
        source=options.source,
        licence=options.licence,
        excluded=excluded,
        confirmed=confirmed,
        settings=settings,
        audit=open_audit(settings),
    )
    print(managed.id)
    return 0


def _splits(options: argparse.Namespace) -> int:
    import numpy as np

    from busi_core.data.duplicates import find_pairs, fingerprint, pairs_within, read_published_scans
    from busi_core.data.records import read_busi
    from busi_core.data.splits import make_folds, read_folds, write_folds
    from busi_core.imaging.decode import decode_image

    folder = read_settings().data_root / "busi"
    records = read_busi(folder)
    names = [record.name for record in records]
    found = find_pairs(names, np.stack([fingerprint(decode_image(r.image.read_bytes()).grey) for r in records]))
    published = read_published_scans(folder / "duplicates_pawlowska_2023.csv")
    true = pairs_within([[name for name in scan.files if name in set(names)] for scan in published])
    print(f"{len(records)} images; {len(true)} published pairs of copies, {len(found)} found from pixels:")
    print(f"  recall {_share(len(found & true), len(true))}, precision {_share(len(found & true), len(found))}")
    made = make_folds(records, published, found)
    if options.write:
        write_folds(made, options.write)
        print(f"written: {options.write}")
        return 0
    committed = read_folds()
    for fold in [*range(5), None]:
        part = [scan for scan in committed if scan.fold == fold]
        title = "training only" if fold is None else f"fold {fold}"
        print(f"  {title}: {len(part)} scans, {sum(len(scan.files) for scan in part)} files")
    if made != committed:
        print("The committed folds are not those of these scans.", file=sys.stderr)
        return 1
    print("The committed folds are those of these scans.")
    return 0


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.3f}" if whole else "n/a"


def _hashes(options: argparse.Namespace) -> int:
    from busi_core.data.records import read_bus_bra, read_busi
    from busi_core.models.checkpoint import read_card
    from busi_core.registry import check_version_name
    from busi_core.taught import TAUGHT_FILE, hash_records, write_taught

    settings = read_settings()
    folder = settings.weights_dir / check_version_name(options.version)
    names = set(read_card(folder).trained_on)
    taught_by = {name.split("/")[0] for name in names}
    readers = {"busi": read_busi, "bus-bra": read_bus_bra}
    known = [read(settings.data_root / name) for name, read in readers.items() if name in taught_by]
    found = [record for records in known for record in records if record.id in names]
    if len(found) < len(names):
        raise DatasetError(
            f"{len(names) - len(found)} of {len(names)} scans that taught {options.version!r} are not at hand.",
            remedy="Set BUSI_DATA_ROOT to the folder that holds them all.",
        )
    hashes = hash_records(found)
    write_taught(folder, hashes)
    print(f"written: {folder / TAUGHT_FILE}, {len(hashes)} hashes of {len(found)} scans")
    return 0
