"""The long run: ``python -m tests.fuzz``.

It needs atheris (``pip install atheris``). Inputs that reach something new are kept in a directory,
so that the next run goes on from there; so are the numbers.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha1
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS

# Seconds that one input may take, and MiB that the process may have.
_SLOWEST = 5
_LARGEST = 1024

Totals = dict[str, Any]


class Run:
    """Runs of the targets, whose inputs and numbers are in a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file = directory / "totals.json"
        self.totals: Totals = json.loads(self._file.read_text()) if self._file.exists() else {}

    def fuzz(self, target: Target, seconds: int, seed: int) -> bool:
        """Feed a target for that long; whether nothing was found."""
        corpus = self._corpus(target)
        words = self._directory / f"{target.name}.dict"
        words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words if word))
        findings = self._directory / "findings"
        findings.mkdir(exist_ok=True)
        done = subprocess.run(
            [
                *(sys.executable, "-m", "tests.fuzz.engine", target.name),
                *(f"-max_total_time={seconds}", f"-seed={seed}", f"-max_len={target.longest}"),
                *(f"-timeout={_SLOWEST}", f"-rss_limit_mb={_LARGEST}", "-print_final_stats=1"),
                *([f"-dict={words}"] if target.words else []),
                *(f"-artifact_prefix={findings}/{target.name}-", str(corpus)),
            ],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        said = done.stderr + done.stdout
        self._count(target, said, is_good=done.returncode == 0)
        if done.returncode:
            print(f"{target.name}: exit status {done.returncode}; the input is in {findings}")
            print("\n".join(_worth_reading(said)))
        return done.returncode == 0

    def _corpus(self, target: Target) -> Path:
        corpus = self._directory / target.name
        corpus.mkdir(parents=True, exist_ok=True)
        for seed in target.seeds():
            (corpus / sha1(seed).hexdigest()).write_bytes(seed[: target.longest])
        return corpus

    def _count(self, target: Target, said: str, *, is_good: bool) -> None:
        numbers = self.totals.setdefault(
            target.name, {"inputs": 0, "findings": 0, "edges": 0, "peak": 0, "slowest": 0}
        )
        numbers["inputs"] += _number(r"number_of_executed_units: (\d+)", said)
        numbers["findings"] += not is_good
        numbers["edges"] = max(numbers["edges"], _number(r"cov: (\d+)", said))
        numbers["peak"] = max(numbers["peak"], _number(r"peak_rss_mb: *(\d+)", said))
        numbers["slowest"] = max(numbers["slowest"], _number(r"slowest_unit_time_sec: (\d+)", said))
        self._file.write_text(json.dumps(self.totals, indent=1))

    def replay(self, target: Target) -> None:
        """Find out what the inputs that were kept reach, and whether memory grows."""
        done = subprocess.run(
            [sys.executable, "-m", "tests.fuzz.replay", target.name, str(self._corpus(target))],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        self.totals.setdefault(target.name, {}).update(json.loads(done.stdout))
        self._file.write_text(json.dumps(self.totals, indent=1))

    def table(self) -> Iterator[str]:
        """All that is known, in words."""
        yield f"{'target':18}{'inputs':>12}{'edges':>7}{'lines':>12}{'crashes':>9}{'growth':>10}"
        for name, numbers in self.totals.items():
            lines, grown = "", ""
            if "lines" in numbers:
                lines = f"{numbers['reached']}/{numbers['lines']}"
                grown = f"{numbers['grown'] // 1024} KiB"
            yield (
                f"{name:18}{numbers.get('inputs', 0):12,}{numbers.get('edges', 0):7}{lines:>12}"
                f"{numbers.get('findings', 0):9}{grown:>10}"
            )
        yield f"{'in all':18}{sum(each.get('inputs', 0) for each in self.totals.values()):12,}"


def _worth_reading(said: str) -> list[str]:
    lines = [line for line in said.splitlines() if not line.startswith(("INFO:", "WARNING:", "#"))]
    return lines[-60:]


def _number(pattern: str, text: str) -> int:
    found = re.findall(pattern, text)
    return int(found[-1]) if found else 0


def _escaped(word: bytes) -> str:
    return "".join(
        chr(byte) if 0x20 < byte < 0x7F and byte not in b'"\\' else f"\\x{byte:02x}"
        for byte in word
    )


def main() -> int:
    """Feed them; 1 if anything was found."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description="Feed bad input to whatever reads any."
    )
    parser.add_argument("--target", action="append", choices=TARGETS, help="default: all of them")
    parser.add_argument("--seconds", type=int, default=30, help="for each target; default: 30")
    parser.add_argument("--seed", type=int, default=1, help="of the random numbers; default: 1")
    parser.add_argument(
        "--directory",
        type=Path,
        default=Path("/var/tmp/walstream-fuzz"),
        help="what is kept for the next run; default: /var/tmp/walstream-fuzz",
    )
    parser.add_argument("--replay", action="store_true", help="only what is kept: reach and growth")
    arguments = parser.parse_args()
    if not arguments.replay and find_spec("atheris") is None:
        parser.error("atheris is not installed: pip install atheris")
    arguments.directory.mkdir(parents=True, exist_ok=True)
    run, good = Run(arguments.directory), True
    for name in arguments.target or TARGETS:
        if arguments.replay:
            run.replay(TARGETS[name])
        else:
            good &= run.fuzz(TARGETS[name], arguments.seconds, arguments.seed)
    print("\n".join(run.table()))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
