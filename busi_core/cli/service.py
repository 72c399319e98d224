"""Commands that decide which version reads scans: judge, promote, rollback, serve."""

import argparse

from busi_core.cli.terminal import Commands, show_count
from busi_core.settings import read_settings


def add_commands(commands: Commands) -> None:
    """Add them to the parser."""
    judge = commands.add_parser(
        "judge", help="hold a version against the one in service by the rules of promotion.toml"
    )
    judge.add_argument("version")
    judge.set_defaults(run=_judge)

    promote = commands.add_parser("promote", help="put a judged version into service, if its verdict allows it")
    promote.add_argument("version")
    promote.add_argument("--comment", required=True, metavar="TEXT", help="why; kept in the record")
    promote.set_defaults(run=_promote)

    rollback = commands.add_parser("rollback", help="put a version back that was in service before")
    rollback.add_argument("version")
    rollback.add_argument("--comment", default="", metavar="TEXT", help="why; kept in the history")
    rollback.set_defaults(run=_rollback)

    serve = commands.add_parser("serve", help="put a version into service without the gate (the machine's owner)")
    serve.add_argument("version")
    serve.add_argument("--comment", default="", metavar="TEXT", help="why; kept in the history")
    serve.set_defaults(run=_serve)


def _judge(options: argparse.Namespace) -> int:
    from busi_core.access import command_line
    from busi_core.promotion.judging import judge_on_record
    from busi_core.promotion.verdict import format_verdict

    verdict = judge_on_record(command_line().confirm(), options.version, read_settings(), show_count)
    print(format_verdict(verdict))
    return 0 if verdict.may_be_promoted else 1


def _promote(options: argparse.Namespace) -> int:
    from busi_core.access import command_line
    from busi_core.audit import open_audit
    from busi_core.promotion.promote import promote
    from busi_core.promotion.protocol import read_protocol
    from busi_core.promotion.verdict import read_verdict
    from busi_core.registry import check_version_name, read_registry

    settings = read_settings()
    in_service = read_registry(settings.weights_dir).in_service
    folder = settings.weights_dir / check_version_name(options.version)
    registry = promote(
        command_line(),
        options.version,
        comment=options.comment,
        expected_in_service=in_service,
        verdict=read_verdict(folder, in_service, read_protocol(settings.promotion_protocol)),
        settings=settings,
        audit=open_audit(settings),
    )
    print(f"in service: {registry.in_service} (before: {in_service})")
    return 0


def _rollback(options: argparse.Namespace) -> int:
    from busi_core.access import command_line
    from busi_core.audit import open_audit
    from busi_core.promotion.promote import roll_back
    from busi_core.registry import read_registry

    settings = read_settings()
    in_service = read_registry(settings.weights_dir).in_service
    registry = roll_back(
        command_line(),
        options.version,
        comment=options.comment,
        expected_in_service=in_service,
        settings=settings,
        audit=open_audit(settings),
    )
    print(f"in service: {registry.in_service} (before: {in_service})")
    return 0


def _serve(options: argparse.Namespace) -> int:
    from busi_core.audit import open_audit
    from busi_core.registry import put_into_service
    from busi_core.service import choose_device
    from busi_core.serving import Serving

    settings = read_settings()
    Serving(settings.weights_dir, choose_device("cpu")).load(options.version)  # refused where it could not answer
    audit = open_audit(settings) if settings.state_dir.is_dir() else None
    put_into_service(settings.weights_dir, options.version, comment=options.comment, audit=audit)
    print(f"in service: {options.version}")
    return 0
