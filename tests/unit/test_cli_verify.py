"""What ``walstream verify`` prints, and how it exits."""

from __future__ import annotations

import json
import subprocess
import sys
from io import StringIO

from tests.unit.archives import SIZE, DirectoryCase
from walstream.cli import main
from walstream.testing.wal import WALBuilder


class VerifyTests(DirectoryCase):
    """With an archive of three segments."""

    def setUp(self) -> None:
        super().setUp()
        wal = WALBuilder(segment_size=SIZE)
        wal.fill_to(wal.start + 3 * SIZE)
        self.records = len(wal.records)
        for name, content in wal.segments().items():
            (self.path / name).write_bytes(content)
        self.out, self.err = StringIO(), StringIO()
        self.patch(sys, "stdout", self.out)
        self.patch(sys, "stderr", self.err)

    def status(self, *words: str) -> int | str | None:
        """How it exits."""
        try:
            return main(["verify", str(self.path), *words])
        except SystemExit as stop:
            return stop.code

    def damage(self) -> None:
        """Change a byte of the second segment."""
        path = self.path / self.name(2)
        content = bytearray(path.read_bytes())
        content[500_000] ^= 1
        path.write_bytes(content)

    def test_good(self) -> None:
        """One line says so, and what was looked at."""
        self.assertEqual(self.status(), 0)
        self.assertRegex(
            self.out.getvalue(),
            rf"^good: 3 segments in 1 range, {self.records} records, 3145728 bytes, [0-9.]+ s\n$",
        )
        self.assertEqual(self.err.getvalue(), "")

    def test_damage_and_a_gap(self) -> None:
        """A line for each: what, where, what to do; and exit status 1."""
        self.damage()
        self.assertEqual(self.status(), 1)
        line, summary = self.out.getvalue().splitlines()
        self.assertRegex(
            line, rf"^DAMAGE  {self.name(2)}: damaged WAL at 0/2\S+: the checksum .*put a good copy"
        )
        self.assertRegex(summary, "^1 fault: 3 segments")
        (self.path / self.name(2)).unlink()
        self.out.truncate(0)
        self.assertEqual(self.status(), 1)
        self.assertIn(
            f"GAP  {self.name(2)}: segment {self.name(2)} is missing", self.out.getvalue()
        )

    def test_for_programs(self) -> None:
        """The same as JSON."""
        self.damage()
        self.assertEqual(self.status("--json", "--jobs", "1"), 1)
        said = json.loads(self.out.getvalue())
        (finding,) = said["findings"]
        self.assertEqual(
            (finding["kind"], finding["subject"], finding["fault"]), ("damage", self.name(2), True)
        )
        self.assertRegex(finding["position"], "^0/2")
        self.assertEqual(said["summary"]["faults"], 1)
        self.assertEqual(said["summary"]["segments"], 3)

    def test_a_part(self) -> None:
        """By position, or by the name of a segment; and by timeline."""
        self.damage()
        self.assertEqual(self.status("--from", "0/300000"), 0)
        self.assertEqual(self.status("--to", "0/200000"), 0)
        self.assertEqual(self.status("--from", self.name(3)), 0)
        self.assertEqual(self.status("--to", self.name(1)), 0)
        self.assertEqual(self.status("--to", self.name(2)), 1)
        self.assertEqual(self.status("--timeline", "2"), 0)
        self.assertEqual(self.status("--timeline", "1"), 1)

    def test_what_cannot_be_looked_at(self) -> None:
        """Exit status 2, and why."""
        self.assertEqual(main(["verify", str(self.path / "nothing")]), 2)
        self.assertIn("nothing", self.err.getvalue())
        for words in (("--jobs", "0"), ("--from", "x"), ("--timeline", "0"), ("--nonsense",)):
            self.assertEqual(self.status(*words), 2, words)

    def test_it_starts_fast(self) -> None:
        """Nothing of Twisted is imported: that would take as long as verifying ten segments."""
        program = (
            "import sys; from walstream.cli import main; main(sys.argv[1:]); "
            "print([name for name in sys.modules if name.split('.')[0] in ('twisted', 'zope')])"
        )
        command = [sys.executable, "-c", program, "verify", str(self.path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        self.assertEqual(done.stdout.splitlines()[-1], "[]")
