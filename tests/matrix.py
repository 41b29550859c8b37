"""Run the tests in fresh environments: each Python that is installed, and the lowest versions.

`make test-matrix` calls this. The package is built and installed as a user would install it, so the
tests see the wheel and not the repository.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
PARALLEL = ("--numprocesses", "auto", "--dist", "worksteal")
NO_TESTS = 5  # the status of pytest where no test is left
PYTHONS = ("3.11", "3.12", "3.13")


def lowest(bounds):
    """The lowest version that each bound allows, as lines of a file of constraints."""
    found = (re.match(r"([\w-]+)>=([\w.]+)", bound) for bound in bounds)
    return [f"{match[1]}=={match[2]}.*" for match in found if match]


def check(python, constraints, tests):
    """Make an environment, install the package there, and run tests. Return the status."""
    with tempfile.TemporaryDirectory() as folder:
        environment = Path(folder) / "environment"
        subprocess.run([python, "-m", "venv", environment], check=True)
        limits = Path(folder) / "constraints.txt"
        limits.write_text("\n".join(constraints))
        install = [environment / "bin" / "pip", "install", "--quiet", "--constraint", limits]
        if subprocess.run([*install, f"{ROOT}[test]"], check=False).returncode:
            return 1
        # `pytest` leaves the folder of the repository out of the path, unlike `python -m pytest`.
        words = [environment / "bin" / "pytest", "-q", "-p", "no:cacheprovider", *PARALLEL, *tests]
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
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [bound for group in project["optional-dependencies"].values() for bound in group]
    pythons = {name: find(name) for name in PYTHONS}
    installed = {name: path for name, path in pythons.items() if path}
    rows = {f"Python {name}, newest versions": (path, []) for name, path in installed.items()}
    oldest = next(iter(installed), None)
    if oldest:
        bounds = lowest([*project["dependencies"], *extras])
        rows[f"Python {oldest}, lowest versions"] = (installed[oldest], bounds)
    failed = 0
    for name, (path, constraints) in rows.items():
        status = check(path, constraints, tests)
        failed += status != 0
        print(f"{name}: {'pass' if status == 0 else 'FAIL'}", flush=True)
    for name in pythons.keys() - installed.keys():
        print(f"Python {name}: is not installed")
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
