"""Builds the wheel and the sdist and tries each in an environment of its own: `make dist`.

Nothing of the checkout is on the path there; the smoke test is `smoke.py` beside this file.
"""

import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
DIST = ROOT / "dist"
WANTED_IN_WHEEL = ("dagsterpipes/__init__.py", "dagsterpipes/py.typed", "licenses/LICENSE")
WANTED_IN_SDIST = (
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "src/dagsterpipes/py.typed",
    "tests/test_layering.py",
)


def main() -> None:
    """Build, look inside, install, run."""
    shutil.rmtree(DIST, ignore_errors=True)
    run(sys.executable, "-m", "build", "--outdir", str(DIST), str(ROOT))
    [wheel] = DIST.glob("*.whl")
    [sdist] = DIST.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        look_inside(wheel, WANTED_IN_WHEEL, archive.namelist())
    with tarfile.open(sdist) as archive:
        look_inside(sdist, WANTED_IN_SDIST, archive.getnames())
    with tempfile.TemporaryDirectory() as folder:
        for number, package in enumerate((wheel, sdist)):
            try_out(package, Path(folder, f"env{number}"))
    print(f"{wheel.name} and {sdist.name} in {DIST} both work in an empty environment")


def look_inside(package: Path, wanted: tuple[str, ...], names: list[str]) -> None:
    """Compare what is in the archive with what has to be, and with what must not."""
    missing = [want for want in wanted if not any(name.endswith(want) for name in names)]
    strange = [name for name in names if "__pycache__" in name or "/.venv/" in name]
    if missing or strange:
        sys.exit(f"{package.name}: missing {missing}, strange {strange}")


def try_out(package: Path, env: Path) -> None:
    """Install into an empty environment and run the smoke test there, away from the checkout."""
    venv.create(env, with_pip=True)
    python = str(env / ("Scripts" if sys.platform == "win32" else "bin") / "python")
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(package))
    run(python, "-I", str(HERE / "smoke.py"), str(env), cwd=env)


def run(*command: str, cwd: Path | None = None) -> None:
    """Run a command and end with it when it fails."""
    print("+", *command, flush=True)
    status = subprocess.run(command, cwd=cwd, check=False).returncode
    if status:
        sys.exit(status)


if __name__ == "__main__":
    main()
