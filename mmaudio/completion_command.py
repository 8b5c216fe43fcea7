"""`mmaudio completion`: what a shell needs to know to complete the words of the command."""

import argparse
from collections.abc import Iterator

from mmaudio.console import UsageError

HELP = """\
Print what a shell needs to complete commands, options and file names. Then open
a new one.

examples:
  mmaudio completion bash > ~/.local/share/bash-completion/completions/mmaudio
  mmaudio completion zsh > ~/.zfunc/_mmaudio     # a folder of your $fpath
"""
SHELLS = ("bash", "zsh")


def print_completion(parser: argparse.ArgumentParser, shell: str) -> int:
    try:
        import shtab
    except ModuleNotFoundError as error:
        raise UsageError("completion needs shtab: pip install shtab") from error
    for action in values_of(parser):
        action.complete = shtab.FILE  # as shells do where they know nothing
    print(shtab.complete(parser, shell))
    return 0


def values_of(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The arguments of a parser and of its commands that take any value."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from values_of(command)
        elif action.nargs != 0 and action.choices is None:
            yield action
