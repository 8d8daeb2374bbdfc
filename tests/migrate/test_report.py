"""The command: files and folders, output, exit status."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from tests.source import ROOT
from txmsg import __version__
from txmsg.cli import main
from txmsg.migrate.report import ERROR, FOUND, NOTHING, run
from txmsg.migrate.table import TXAMQP

USE = "from txamqp.protocol import AMQClient\n"


class CommandTests(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="txmsg-test-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def write(self, name: str, text: str | bytes = USE) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    def call(self, *arguments: object) -> tuple[int, list[str], str]:
        """(exit status, lines, standard error)"""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(["migrate", *map(str, arguments)])
        return code, out.getvalue().splitlines(), err.getvalue()

    def test_found(self) -> None:
        path = self.write("a.py", "\n" + USE)
        (row,) = [row for row in TXAMQP.rows if row.old == "txamqp.protocol.AMQClient"]
        self.assertEqual(
            self.call(path),
            (
                FOUND,
                [f"{path}:2: uses txamqp.protocol.AMQClient -> {row.native}; see docs/moving-from-txamqp.md"],
                "1 use in 1 of 1 files\n",
            ),
        )

    def test_nothing(self) -> None:
        path = self.write("a.py", "import pika\n")
        self.assertEqual(self.call(path), (NOTHING, [], "0 uses in 0 of 1 files\n"))

    def test_folder(self) -> None:
        """Python files of any kind, in order; no hidden folders, no caches, no virtual environments."""
        wanted = [self.write(name) for name in ("b/c.py", "b/z.tac", "d.py")]
        for name in (".git/e.py", "__pycache__/f.py", "venv/lib/g.py", "conda/conda-meta/h", "conda/i.py", "notes.txt"):
            self.write(name)
        self.write("venv/pyvenv.cfg", "")
        code, lines, _ = self.call(self.folder)
        self.assertEqual(code, FOUND)
        self.assertEqual(sorted(line.split(":")[0] for line in lines), sorted(map(str, wanted)))

    def test_errors(self) -> None:
        """What cannot be read is named, the rest is looked at, and the status says it."""
        old = self.write("old.py", "import txamqp.spec\nprint 'Python 2'\n")
        self.write("binary.py", b"\0\xff")
        self.write("good.py")
        code, lines, errors = self.call(self.folder, self.folder / "missing.py")
        self.assertEqual(code, ERROR)
        self.assertEqual(len(lines), 1)
        self.assertIn(f"{old}:2: not source of this Python", errors)
        self.assertIn("binary.py", errors)
        self.assertIn("missing.py: No such file", errors)

    def test_not_files(self) -> None:
        """Pipes, folders that are called like files, and links to nowhere or to where we are, are passed by."""
        path = self.write("a.py")
        os.mkfifo(self.folder / "pipe.py")
        (self.folder / "folder.py").mkdir()
        for name, target in ((".#a.py", "nobody@nowhere"), ("loop.py", "loop.py"), ("above", ".")):
            (self.folder / name).symlink_to(target)
        code, lines, errors = self.call(self.folder)
        self.assertEqual((code, len(lines), errors), (FOUND, 1, "1 use in 1 of 1 files\n"))
        self.assertIn(str(path), lines[0])

    def test_folder_that_cannot_be_listed(self) -> None:
        """It may hold anything: an error."""
        self.write("good.py", "")
        closed = self.write("closed/a.py").parent
        scandir = os.scandir

        def scan(folder: str) -> object:
            if str(folder) == str(closed):
                raise PermissionError(errno.EACCES, "Permission denied", folder)
            return scandir(folder)

        with mock.patch("os.scandir", scan):
            code, lines, errors = self.call(self.folder)
        self.assertEqual((code, lines), (ERROR, []))
        self.assertEqual(errors, f"{closed}: Permission denied\n0 uses in 0 of 1 files\n")

    def test_names_that_no_encoding_has(self) -> None:
        """A file's name is octets."""
        self.write("a.py").rename(os.fsdecode(os.fsencode(self.folder) + b"/\xff.py"))
        for encoding in ("utf-8", "ascii"):
            out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
            self.assertEqual(run([str(self.folder)], out, io.StringIO()), FOUND)
            out.seek(0)
            self.assertIn("\\udcff.py:1: uses txamqp", out.read())

    def test_other_encodings(self) -> None:
        """The file's own declaration counts."""
        path = self.write("latin.py", b"# -*- coding: latin-1 -*-\n# gr\xfcn\n" + USE.encode())
        self.assertEqual(self.call(path)[0], FOUND)

    def test_all_files(self) -> None:
        path = self.write("handed.py", "def send(channel):\n    channel.basic_ack(1)\n")
        self.assertEqual(self.call(path)[0], NOTHING)
        self.assertEqual(self.call("--all-files", path)[0], FOUND)

    def test_usage(self) -> None:
        """No command, no file: status 2, as argparse has it."""
        for arguments in ([], ["migrate"], ["nope"]):
            with contextlib.redirect_stderr(io.StringIO()), self.assertRaises(SystemExit) as caught:
                main(arguments)
            self.assertEqual(caught.exception.code, 2)

    def test_process(self) -> None:
        """As a program; a reader that goes away is no error to speak of."""
        command = [sys.executable, "-m", "txmsg.cli"]
        done = subprocess.run([*command, "--version"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
        self.assertEqual(done.stdout.strip(), f"txmsg {__version__}")
        self.write("many.py", USE * 5000)
        running = subprocess.Popen(
            [*command, "migrate", str(self.folder)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert running.stdout is not None
        assert running.stderr is not None
        self.assertTrue(running.stdout.readline())
        running.stdout.close()
        errors = running.stderr.read()
        running.stderr.close()
        self.assertEqual(running.wait(60), FOUND)
        self.assertNotIn(b"Traceback", errors)
