"""Videos or audio files to a feature store, which training reads."""

import argparse
import sys

from mmaudio.console import UsageError, error_line, expected_errors, log
from mmaudio.generate_command import config_dir

HELP = """\
Videos or audio files, listed in a manifest, to a feature store, which training reads.

examples:
  %(prog)s manifest=clips.tsv output=data/my_clips variant=small_16k
  %(prog)s manifest=test.tsv output=data/my_test variant=small_16k peak_normalise=false
  torchrun --standalone --nproc_per_node=8 %(prog)s manifest=clips.tsv output=data/my_clips variant=large_44k
  %(prog)s --engine ray manifest=clips.tsv output=data/my_clips variant=large_44k

A video gives one clip: 8 s of picture and sound from `start` on. Audio files of at least 8.1 s give up to five, called
ID_0, ID_1 and so on. Killed at any moment, the same command goes on where it was, with any number of ranks (all of them
must see the same files). What cannot be used is listed, with reasons, in OUTPUT.failed.tsv; that file is a manifest
itself, so what was mended can be extracted from it to another store.

Exit code: 0 all is in the store, 1 some clips failed, 2 nothing could be done.

settings and their defaults (configs/extract.yaml):
"""
PATHS = ("manifest", "output", "weights_dir")
SOME_FAILED, USAGE_ERROR, STOPPED = 1, 2, 130


def quoted(word: str) -> str:
    """A `key=value` word with Hydra's quotes around a path, whose commas and brackets mean nothing."""
    key, equals, value = word.partition("=")
    if key not in PATHS or not equals or value in ("", "null") or value[0] in "'\"":
        return word
    return key + "='" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def extract_config(words: list[str]):
    """configs/extract.yaml, then `key=value` words. Raises UsageError naming an unknown or missing key."""
    from hydra import compose, initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from mmaudio.data.extraction import ExtractConfig

    ConfigStore.instance().store("extract_schema", ExtractConfig)
    try:
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            config = compose("extract", overrides=[quoted(word) for word in words])
        missing = sorted(OmegaConf.missing_keys(config))
        if missing:
            raise UsageError(f"missing: {', '.join(f'{name}=...' for name in missing)} (see --help)")
        return OmegaConf.to_object(config)
    except (HydraException, OmegaConfBaseException) as error:
        raise UsageError(f"setting: {str(error).splitlines()[0]}") from error


def run(words: list[str]) -> int:
    from mmaudio.data.extraction import extract
    from mmaudio.data.manifest import ManifestError
    from mmaudio.data.parts import ExtractionError
    from mmaudio.data.store import StoreError

    try:
        return extract(extract_config(words))
    except KeyboardInterrupt:
        log("stopped; the same command goes on from here")
        return STOPPED
    except (*expected_errors(), ManifestError, ExtractionError, StoreError) as error:
        log(error_line(error))
        return USAGE_ERROR


def main(argv: list[str] | None = None) -> int:
    _, _, settings = (config_dir() / "extract.yaml").read_text(encoding="utf-8").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=HELP + settings.replace("%", "%%"), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", choices=("local", "ray"), help="the same as engine=...")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="any of the settings above")
    args = parser.parse_args(argv)
    return run(args.settings + ([f"engine={args.engine}"] if args.engine else []))


if __name__ == "__main__":
    sys.exit(main())
