"""Work in progress of an extraction: one small file for each finished unit, so that nothing is lost or done twice.

FOLDER/  identity.json          what made the parts; others do not mix with them
         3f/3fa2....safetensors a finished unit; appears whole or not at all
         3f/3fb1....failed      the reason why a unit cannot be used
"""

import json
import os
import shutil
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from mmaudio.weights import save_safetensors

PART, FAILED = ".safetensors", ".failed"
INFO = "info"  # key of the metadata that holds JSON


class ExtractionError(Exception):
    """An extraction cannot go on. One line: what is wrong, what to do."""


def write_text(path: Path, text: str) -> None:
    """Whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8", newline="\n")
    os.replace(temporary, path)


class Parts:
    """Several processes, on several machines that share the file system, may use a folder at the same time.

    Args:
        identity: whatever decides the numbers: extractors, settings.
    """

    def __init__(self, folder: Path, identity: dict[str, str]):
        self.folder, self.identity = folder, identity

    def begin(self) -> None:
        """Make the folder, or go on with it.

        Raises:
            ExtractionError: its parts were made by other extractors or settings.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "identity.json"
        if not path.exists():
            write_text(path, json.dumps(self.identity, indent=2))
        found = json.loads(path.read_text(encoding="utf-8"))
        for key in sorted(found | self.identity):
            if (was := found.get(key)) != (now := self.identity.get(key)):
                raise ExtractionError(
                    f"{self.folder}: was begun with {key} {was}, now it is {now}; go on as before, choose another "
                    "output, or remove the folder"
                )

    def path(self, name: str, suffix: str = PART) -> Path:
        return self.folder / name[:2] / f"{name}{suffix}"

    def save(self, name: str, tensors: dict[str, Tensor], info: dict) -> None:
        save_safetensors(self.path(name), tensors, {INFO: json.dumps(info)})
        self.forget_failure(name)

    def fail(self, name: str, reason: str) -> None:
        path = self.path(name, FAILED)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, reason)

    def forget_failure(self, name: str) -> None:
        self.path(name, FAILED).unlink(missing_ok=True)

    def names(self, suffix: str = PART) -> set[str]:
        """Of all finished units, or with FAILED of all failed ones."""
        found = set()
        for sub in os.scandir(self.folder):
            if sub.is_dir():
                found |= {
                    entry.name.removesuffix(suffix)
                    for entry in os.scandir(sub)
                    if entry.name.endswith(suffix) and not entry.name.startswith(".")
                }
        return found

    def reason(self, name: str) -> str:
        return self.path(name, FAILED).read_text(encoding="utf-8")

    def info(self, name: str) -> dict:
        with self._opened(name) as part:
            return json.loads(part.metadata()[INFO])

    def tensors(self, name: str) -> dict[str, Tensor]:
        with self._opened(name) as part:
            return {key: part.get_tensor(key) for key in part.keys()}  # noqa: SIM118 (no dict)

    def _opened(self, name: str):
        path = self.path(name)
        try:
            return safe_open(path, framework="pt")
        except (SafetensorError, OSError) as error:
            raise ExtractionError(f"{path}: damaged ({error}); delete it and run the same command again") from error

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
