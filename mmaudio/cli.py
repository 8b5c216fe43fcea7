"""The `mmaudio` command: `generate` (also `demo.py`) and others; `mmaudio --help` lists them."""

import argparse
import json
import sys
from pathlib import Path

from mmaudio.completion_command import HELP as COMPLETION_HELP
from mmaudio.completion_command import SHELLS, print_completion
from mmaudio.console import UsageError, error_line, expected_errors, log
from mmaudio.evaluation.command import HELP as EVALUATE_HELP
from mmaudio.evaluation.command import add_evaluate_arguments, evaluate_command
from mmaudio.generate_command import GENERATE_HELP, add_generate_arguments, generate, split_overrides
from mmaudio.study.command import HELP as STUDY_HELP
from mmaudio.study.command import add_study_arguments
from mmaudio.version import __version__
from mmaudio.web.serve_command import HELP as SERVE_HELP
from mmaudio.web.serve_command import add_serve_arguments

USAGE_ERROR = 2


def download_command(args: argparse.Namespace) -> int:
    from mmaudio.catalogue import with_weights
    from mmaudio.weights import download, download_dir, find, verify

    owner, files = with_weights(args.name)
    if owner.bundled:
        log(f"{owner.name} is bundled with the package; nothing to download")
        return 0
    folder = download_dir(args.weights_dir)
    log(f"licence: {owner.licence}")
    for file in files.values():
        here = find(file, args.weights_dir)
        if here is None:
            log(f"{file.name} ({file.size or 'size not published'}; licence: {file.licence}) -> {folder}")
            here = download(file, folder)
        elif here.name == file.name:  # not a converted file: its checksum is known
            verify(here, file)
        print(here, flush=True)
    return 0


def convert_command(args: argparse.Namespace) -> int:
    import dataclasses

    from mmaudio.loading import check_network
    from mmaudio.variants import VARIANTS, check_metadata, get_variant, network_metadata
    from mmaudio.weights import CONFIG_KEY, convert, read_metadata, read_state

    metadata, config, name = {}, None, Path(args.source).name
    if args.variant:
        variant = get_variant(args.variant)
        check_network(variant, read_state(args.source), args.source)
        check_metadata(variant, args.source)
        metadata = network_metadata(variant)
    elif CONFIG_KEY not in read_metadata(args.source):  # official files are known by their names
        owners = [(v, part) for v in VARIANTS.values() for part, file in v.files.present.items() if file.name == name]
        for variant, part in owners[:1]:
            if part == "network":
                metadata = network_metadata(variant)
            else:  # shared by several variants
                metadata, config = {"part": part}, dataclasses.asdict(getattr(variant, part))
    target = Path(args.target) if args.target else Path(args.source).with_suffix(".safetensors")
    if target.suffix != ".safetensors":
        raise UsageError(f"{target}: the target must end in .safetensors")
    if target.exists() and not args.overwrite:
        raise UsageError(f"{target}: exists already; add --overwrite")
    convert(args.source, target, metadata, config=config)
    print(target)
    return 0


def info_command(args: argparse.Namespace) -> int:
    from mmaudio.catalogue import list_variants, whereabouts, with_weights
    from mmaudio.evaluation.backbones import BACKBONES
    from mmaudio.weights import find, read_metadata, read_state, search_dirs

    if args.name and Path(args.name).is_file():
        state = read_state(args.name)
        print(f"{args.name}: {len(state)} tensors, {sum(t.numel() for t in state.values()):,} values")
        print(json.dumps(read_metadata(args.name), indent=2))
        return 0
    if args.name:
        owner, files = with_weights(args.name)
        print(f"{owner.name}: {owner.about}\nlicence: {owner.licence}")
        if owner.name not in BACKBONES:
            print(json.dumps({"network": vars(owner.network), "spec": vars(owner.spec)}, indent=2))
        for part, file in files.items():
            where = find(file, args.weights_dir) or f"missing, {file.size or 'size not published'}: {file.url}"
            print(f"{part:8s} {file.name}: {where}\n         licence: {file.licence}")
        return 0
    print(f"mmaudio {__version__}")
    for row in list_variants(args.weights_dir):
        rate, millions = f"{row.sample_rate / 1000:g} kHz", f"{row.parameters / 1e6:.0f}M"
        print(f"{row.name:14s} {millions:>6s} {rate:>9s}  {row.weights:8s} {row.about}")
    print("networks of the evaluation:")
    for info in BACKBONES.values():
        print(f"{info.name:14s} {whereabouts(info, info.files, args.weights_dir):8s} {info.about}")
    print("weights are searched in: " + ", ".join(map(str, search_dirs(args.weights_dir))))
    return 0


def store_info_command(args: argparse.Namespace) -> int:
    from mmaudio.data.store import open_store

    store = open_store(args.folder)
    kind = "rows with video" if store.has_video else "rows of sound alone"
    print(f"{args.folder}: {len(store):,} {kind}, {len(store.caption_table):,} texts")
    print(f"extracted for: {store.meta.variant or 'unknown, in the layout of the reference implementation'}")
    for name, tensor in store.tensors.items():
        shape, dtype = " x ".join(map(str, tensor.shape)), str(tensor.dtype).removeprefix("torch.")
        print(f"{name:5s} {shape:>18s} {dtype:9s}{tensor.nbytes / 1e6:12,.1f} MB")
    print(f"bytes per row: {sum(tensor.nbytes for tensor in store.tensors.values()) / len(store):,.0f}")
    for part, checksum in store.meta.identity.items():
        print(f"{part}: {checksum}")
    return 0


def store_verify_command(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from mmaudio.data.store import verify

    with tqdm(desc=args.folder, unit="B", unit_scale=True, disable=None, leave=False) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        problems = verify(args.folder, progress)
    for problem in problems:
        log(f"error: {problem}")
    if not problems:
        print(f"{args.folder}: sound")
    return 1 if problems else 0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mmaudio", description="Sound for silent video.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    generating = commands.add_parser(
        "generate", help="synthesise sound for videos, a picture or words", description=GENERATE_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add_generate_arguments(generating)
    generating.set_defaults(run=generate)

    evaluating = commands.add_parser(
        "evaluate", help="judge generated sounds by every usual metric", description=EVALUATE_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add_evaluate_arguments(evaluating)
    evaluating.set_defaults(run=evaluate_command)

    downloading = commands.add_parser(
        "download", help="fetch the weights of an official variant, or of a network of the evaluation (resumes, checks)"
    )
    downloading.add_argument("name", help="a name from `mmaudio info`")
    downloading.add_argument("--weights_dir", metavar="DIR", help="default: $MMAUDIO_WEIGHTS or the cache folder")
    downloading.set_defaults(run=download_command)

    converting = commands.add_parser("convert", help="rewrite a checkpoint as safetensors")
    converting.add_argument("source", help=".pth, .pt, .bin or .safetensors")
    converting.add_argument("target", nargs="?", help="default: the source's name with .safetensors")
    converting.add_argument("--variant", help="of a flow network of your own: checks it, makes a file for --variant")
    converting.add_argument("--overwrite", action="store_true")
    converting.set_defaults(run=convert_command)

    telling = commands.add_parser("info", help="list what there is, or tell all about a variant, network or file")
    telling.add_argument("name", nargs="?", metavar="name, file or run")
    telling.add_argument("--weights_dir", metavar="DIR")
    telling.set_defaults(run=info_command)

    storing = commands.add_parser("store", help="look at a feature store, or check all of it")
    verbs = storing.add_subparsers(dest="what", required=True, metavar="info or verify")
    for name, act, text in (
        ("info", store_info_command, "what is in it, and what made it"),
        ("verify", store_verify_command, "read everything; exit code 1 if anything is wrong"),
    ):
        verb = verbs.add_parser(name, help=text, description=text)
        verb.add_argument("folder", help="a feature store, or a folder in the reference implementation's layout")
        verb.set_defaults(run=act)

    studying = commands.add_parser(
        "study", help="serve a listening study, and tell what came out", description=STUDY_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add_study_arguments(studying)

    serving = commands.add_parser(
        "serve", help="a web page for people and an HTTP service for programs", description=SERVE_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add_serve_arguments(serving)

    completing = commands.add_parser(
        "completion", help="what a shell needs to complete all this", description=COMPLETION_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    completing.add_argument("shell", choices=SHELLS)
    completing.set_defaults(run=lambda args: print_completion(parser, args.shell))
    return parser


def run(args: argparse.Namespace) -> int:
    try:
        return args.run(args)
    except KeyboardInterrupt:
        log("stopped")
        return 130
    except expected_errors() as error:
        log(error_line(error))
        return USAGE_ERROR


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    generating = argv[:1] == ["generate"]  # only there are `key=value` words settings
    rest, words = split_overrides(argv) if generating else (argv, [])
    args = build_parser().parse_args(rest)
    args.overrides = words
    return run(args)


def demo(argv: list[str] | None = None) -> int:
    """`demo.py`: `mmaudio generate` without the word."""
    parser = argparse.ArgumentParser(
        prog="demo.py", description=GENERATE_HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_generate_arguments(parser)
    rest, words = split_overrides(sys.argv[1:] if argv is None else argv)
    args = parser.parse_args(rest)
    args.run, args.overrides = generate, words
    return run(args)
