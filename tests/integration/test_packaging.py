"""However walstream is installed, twistd finds it; once it is uninstalled, Twisted is as before.

Nothing is downloaded: the scratch environments see the packages of the one that runs the tests.
Of Twisted each has a copy of its own, since Twisted's folder is what an uninstall could break.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
NOT_SOURCE = shutil.ignore_patterns(
    ".git", ".venv*", ".*_cache", ".hypothesis", "__pycache__", "*.egg-info", "build", "dist",
    "dropin.cache",
)  # fmt: skip

TWISTD = """#!{python}
import sys
from twisted.scripts.twistd import run
sys.exit(run())
"""


def run(*command: str | Path, cwd: Path) -> str:
    """Run a program outside the checkout and give its output; fail if it fails."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@dataclass(frozen=True)
class Environment:
    """A virtual environment with its own Twisted."""

    directory: Path

    @classmethod
    def make(cls, directory: Path) -> Environment:
        """A new one in *directory*."""
        venv.create(directory, symlinks=True)
        made = cls(directory)
        ours = Path(sysconfig.get_path("purelib"))
        # A line of a path file is a folder to search, whose own path files are not followed: what
        # is installed as editable here, such as walstream, is not visible there.
        (made.packages / "zz-outer.pth").write_text(f"{ours}\n")
        twisted = importlib.metadata.distribution("twisted")
        assert twisted.files is not None
        for file in twisted.files:
            if not {"..", "test"} & set(file.parts):  # programs, and Twisted's own tests
                target = made.packages / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(str(file.locate()), target)
        twistd = made.directory / "bin" / "twistd"
        twistd.write_text(TWISTD.format(python=made.python))
        twistd.chmod(0o755)
        return made

    @property
    def python(self) -> Path:
        """Its Python."""
        return self.directory / "bin" / "python"

    @property
    def packages(self) -> Path:
        """Its folder of installed packages."""
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return self.directory / "lib" / version / "site-packages"

    def pip(self, *arguments: str | Path) -> str:
        """Run its pip."""
        return run(self.python, "-m", "pip", *arguments, cwd=self.directory)

    def twistd_commands(self) -> list[str]:
        """The commands that its twistd lists."""
        output = run(self.directory / "bin" / "twistd", "--help", cwd=self.directory)
        commands = output.partition("Commands:")[2]
        return [line.split()[0] for line in commands.splitlines() if line.startswith("    ")]

    def twisted_files(self) -> list[Path]:
        """What its folder of Twisted's plugins holds, but for the caches."""
        folder = self.packages / "twisted" / "plugins"
        return sorted(path for path in folder.iterdir() if path.suffix == ".py")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the checkout, since building leaves files behind."""
    copy = tmp_path / "source"
    shutil.copytree(CHECKOUT, copy, ignore=NOT_SOURCE)
    return copy


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[Environment]:
    """A new virtual environment."""
    made = Environment.make(tmp_path / "environment")
    yield made
    shutil.rmtree(made.directory)


def build(kind: str, source: Path, target: Path) -> Path:
    """Build an sdist or a wheel."""
    command = (sys.executable, "-m", "build", "--no-isolation", f"--{kind}", "--outdir", target)
    run(*command, source, cwd=target.parent)
    (built,) = target.iterdir()
    return built


@pytest.mark.parametrize("way", ["wheel", "sdist", "directory", "editable"])
def test_twistd_lists_walstream_while_it_is_installed(
    way: str, source: Path, environment: Environment, tmp_path: Path
) -> None:
    """Each way of installing makes the plugin known, and uninstalling leaves Twisted whole."""
    before = environment.twisted_files()
    assert "walstream" not in environment.twistd_commands()

    if way in ("wheel", "sdist"):
        what: list[str | Path] = [build(way, source, tmp_path / "built")]
    else:
        what = ["--editable", source] if way == "editable" else [source]
    environment.pip("install", "--no-deps", "--no-index", "--no-build-isolation", *what)
    assert "walstream" in environment.twistd_commands()
    where = run(
        environment.python, "-c", "import walstream; print(walstream.__file__)", cwd=tmp_path
    )
    assert Path(where).is_relative_to(source if way == "editable" else environment.packages)

    environment.pip("uninstall", "--yes", "walstream")
    assert environment.twisted_files() == before
    commands = environment.twistd_commands()
    assert "walstream" not in commands
    assert "web" in commands


def test_a_wheel_has_all_that_walstream_is(source: Path, tmp_path: Path) -> None:
    """Every module, the mark of typed packages, and the plugin; nothing of Twisted's own."""
    with zipfile.ZipFile(build("wheel", source, tmp_path / "built")) as wheel:
        packed = set(wheel.namelist())
    modules = {str(path.relative_to(source)) for path in (source / "walstream").rglob("*.py")}
    wanted = modules | {"walstream/py.typed", "twisted/plugins/walstream_plugin.py"}
    assert not wanted - packed, "a folder without __init__.py is no package"
    folders = {name.partition("/")[0] for name in packed if ".dist-info" not in name}
    assert folders == {"walstream", "twisted"}
    assert not [name for name in packed if name.endswith(("__pycache__", "dropin.cache"))]
    assert "twisted/__init__.py" not in packed
    assert "twisted/plugins/__init__.py" not in packed


def test_an_sdist_has_what_it_takes_to_test_it(source: Path, tmp_path: Path) -> None:
    """Tests, documentation and the scripts are in it."""
    with tarfile.open(build("sdist", source, tmp_path / "built")) as sdist:
        packed = {name.partition("/")[2] for name in sdist.getnames()}
    assert packed >= {"setup.py", "LICENSE", "run", ".ci/run", "tests/conftest.py"}
    assert "twisted/plugins/walstream_plugin.py" in packed
