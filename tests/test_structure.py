"""The house rules that a machine can check: who imports whom, and how light `import mmaudio` is."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mmaudio

PACKAGE = Path(mmaudio.__file__).parent
ALLOWED = {  # part of the package -> parts of ours that it may import
    "sequence": set(),
    "flow": set(),
    "version": set(),
    "loudness": set(),
    "weights": set(),
    "fast_conv": set(),
    "media": set(),
    "model": {"sequence", "weights"},
    "features": {"sequence", "weights"},
    "codec": {"sequence", "weights", "fast_conv"},
    "stage": {"media"},
    # extraction needs whole variants and says what it does; what training reads does not
    "data": {"sequence", "weights", "media", "features", "codec", "variants", "loading", "console", "version"},
    "data/store": {"data", "sequence"},
    "data/mixture": {"data", "sequence", "variants"},
    "data/loader": {"data"},
    "data/sampler": set(),
}


def part_of(name: str) -> str:
    return name.split(".")[1] if "." in name else name


def imports(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").startswith("mmaudio"):
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("mmaudio"))


@pytest.mark.parametrize("part", ALLOWED)
def test_who_may_import_whom(part):
    files = list((PACKAGE / part).rglob("*.py")) or [PACKAGE / f"{part}.py"]
    assert files
    for path in files:
        for name in imports(path):
            assert part_of(name) in ALLOWED[part] | {part}, f"{path.relative_to(PACKAGE)} imports {name}"


def test_import_is_light():
    code = (
        "import sys, mmaudio;"
        "print([m for m in ('torch', 'torchvision', 'open_clip', 'bigvgan', 'av', 'tensordict') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_the_pipeline_loads_no_heavy_library_before_it_is_called():
    code = (
        "import sys, mmaudio; mmaudio.Pipeline('tiny_16k', device='cpu');"
        "heavy = ('torchvision', 'open_clip', 'bigvgan', 'matplotlib', 'librosa', 'tensordict');"
        "print([m for m in heavy if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_public_names():
    assert set(mmaudio.__all__) <= set(dir(mmaudio))
    for name in mmaudio.__all__:
        assert getattr(mmaudio, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        mmaudio.nonsense  # noqa: B018
