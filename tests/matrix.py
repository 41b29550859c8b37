"""Run the tests in fresh environments: each Python that is installed, and the lowest versions.

`make test-matrix` calls this. The package is built and installed as a user would install it, so the
tests see the wheel and not the repository.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
PARALLEL = ("--numprocesses", "auto", "--dist", "worksteal")
NO_TESTS = 5  # the status of pytest where no test is left
PYTHONS = ("3.11", "3.12", "3.13")


def check(python, resolution, tests):
    """Make an environment, install the package there, and run tests. Return the status.

    `resolution` is "highest" or "lowest-direct", which is the lowest version of each bound in
    pyproject.toml. pip cannot choose those, so uv installs.
    """
    with tempfile.TemporaryDirectory() as folder:
        environment = Path(folder) / "environment"
        subprocess.run([python, "-m", "venv", environment], check=True)
        programs = environment / "bin"
        subprocess.run([programs / "pip", "install", "--quiet", "uv"], check=True)
        install = [programs / "uv", "pip", "install", "--quiet", "--python", programs / "python"]
        wanted = ["--resolution", resolution, f"{ROOT}[test]"]
        if subprocess.run([*install, *wanted], check=False).returncode:
            return 1
        # `pytest` leaves the folder of the repository out of the path, unlike `python -m pytest`.
        words = [programs / "pytest", "-q", "-p", "no:cacheprovider", *PARALLEL, *tests]
        # Some tests import experiments, which a wheel does not have under that name.
        (Path(folder) / "path").mkdir()
        (Path(folder) / "path" / "experiments").symlink_to(ROOT / "experiments")
        plain = {**os.environ, "PYTHONPATH": f"{folder}/path"}
        passes = [
            subprocess.run([*words, *each], cwd=ROOT, env=plain, check=False).returncode
            for each in (["--compile-quickly"], ["-m", "as_users_compile", "--jaxtyping-packages="])
        ]
        return int(any(status not in (0, NO_TESTS) for status in passes))


def find(version):
    """The path of a Python, or None if it is not installed or does not start."""
    path = shutil.which(f"python{version}")
    if path is None:
        return None
    started = subprocess.run([path, "--version"], capture_output=True, check=False)
    return path if started.returncode == 0 else None


def main(tests):
    """Say for each environment whether its tests pass, and return how many do not."""
    pythons = {name: find(name) for name in PYTHONS}
    installed = {name: path for name, path in pythons.items() if path}
    rows = {
        f"Python {name}, newest versions": (path, "highest") for name, path in installed.items()
    }
    oldest = next(iter(installed), None)
    if oldest:
        rows[f"Python {oldest}, lowest versions"] = (installed[oldest], "lowest-direct")
    failed = 0
    for name, (path, resolution) in rows.items():
        status = check(path, resolution, tests)
        failed += status != 0
        print(f"{name}: {'pass' if status == 0 else 'FAIL'}", flush=True)
    for name in pythons.keys() - installed.keys():
        print(f"Python {name}: is not installed")
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
