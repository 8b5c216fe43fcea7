"""`mmaudio study`: serve a listening study, and tell what came out."""

import argparse
from contextlib import closing
from pathlib import Path

from mmaudio.console import log

HELP = """\
A listening study: participants rate the sounds of several methods, blinded and
in random order, by three statements on a scale from 1 to 5; or, with --pairs,
say which of two sounds of a video is better.

examples:
  mmaudio study serve --methods ours=videos/a other=videos/b --out study.sqlite
  mmaudio study serve --methods ours=videos/a other=videos/b --pairs
  mmaudio study report study.sqlite
"""


def add_study_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="what", required=True, metavar="serve or report")
    text = "serve the pages; the same command goes on with the same answers"
    serving = verbs.add_parser("serve", help=text, description=text)
    serving.add_argument(
        "--methods", nargs="+", required=True, metavar="NAME=DIR", help="folders that hold videos of the same names"
    )
    serving.add_argument(
        "--pairs", action="store_true", help="ask which of two sounds is better, for every two methods and every video"
    )
    serving.add_argument("--out", type=Path, default=Path("study.sqlite"), metavar="FILE", help="answers (%(default)s)")
    serving.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (%(default)s: this machine alone; 0.0.0.0: anybody)"
    )
    serving.add_argument("--port", type=int, default=8770, help="(%(default)s)")
    serving.set_defaults(run=serve_command)
    text = "mean, standard deviation and Bradley-Terry ranking of the methods"
    telling = verbs.add_parser("report", help=text, description=text)
    telling.add_argument("answers", type=Path, help="the file that `serve` wrote")
    telling.set_defaults(run=report_command)


def serve_command(args: argparse.Namespace) -> int:
    from mmaudio.study.answers import Answers
    from mmaudio.study.methods import StudyError, read_methods
    from mmaudio.study.server import StudyServer
    from mmaudio.study.sheets import Study

    methods = read_methods(args.methods)
    with closing(Answers(args.out, methods)) as answers:
        study = Study(methods, answers, args.pairs)
        try:
            server = StudyServer(study, args.host, args.port)
        except (OSError, OverflowError) as error:  # a port over 65535 overflows
            where = f"{args.host}:{args.port}"
            raise StudyError(f"cannot listen on {where} ({error}); choose another --host or --port") from error
        with server:
            host, port = server.server_address[:2]
            asked = f", {len(study.pages)} pairs" if args.pairs else ""
            log(f"{len(methods)} methods, {len(answers.videos)} videos{asked}, answers in {args.out}")
            log(f"http://{host}:{port}/ (Ctrl-C stops)")
            server.serve_forever()
    return 0


def report_command(args: argparse.Namespace) -> int:
    from mmaudio.study.analysis import report
    from mmaudio.study.answers import Answers

    with closing(Answers(args.answers)) as answers:
        print(report(answers))
    return 0
