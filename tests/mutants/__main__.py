"""`make mutants`: is each of the faults in mutants.toml noticed by the quick tests?

    python -m tests.mutants            all of them
    python -m tests.mutants WORD…      those with one of these words in their name or file

The tests are run once as they are, to see which functions each of them calls. Then each mutant is put into a copy of
the tree, and the tests that call the function it changes are run there, the fastest first, until one fails. A time
limit that is run into has noticed the fault as well. Exit code 0: all were noticed; 1: some survived, which are
printed with where they are; 2: the list does not fit the source, or the tests do not run.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from tests.mutants.mutant import REPOSITORY, SOURCES, Mutant, MutantError, read_list
from tests.mutants.reach import TESTS, TO
from tests.mutants.server import Server

AT_ONCE: Final = 2
CASES: Final = "tests/cases/"
QUICK: Final = ("tests/unit", "tests/cases", "tests/property")
LEFT_OUT: Final = (
    # Not quick, or about the list itself.
    "test_linters.py", "test_mutants.py", "test_commands.py", "test_evidence_json.py",
    # About what no mutant changes: address plans, nodes' configuration, words, packaging.
    "test_address_*.py", "test_cidr*.py", "test_node_*.py", "test_kube*.py", "test_manifests.py", "test_image.py",
    "test_documents.py", "test_programs.py", "test_boot_rule.py",
)  # fmt: skip
PYTEST: Final = (
    "-q", "-p", "tests.mutants.reach", "-p", "no:cacheprovider", "-m", "not system and not elsewhere and not long",
)  # fmt: skip
FAILED: Final = re.compile(r"^(?:FAILED|ERROR) (\S+::.*?)(?: - .*)?$", re.MULTILINE)
BASELINE_S: Final = 1800.0  # a machine may have much else to do
LEAST_S: Final = 60.0  # a mutant's time limit, beside a multiple of what its tests have taken without it
COPIED: Final = ("agent", "tests", "docs", "systemd", "cloud-init", "kubernetes", "protos")
NOT_COPIED: Final = ("__pycache__", "*.egg-info", ".*")

Reach = dict[str, tuple[float, frozenset[str]]]


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a mutant: `by` is the test that noticed it, "" where none did."""

    mutant: Mutant
    where: str
    by: str
    seconds: float


def copy_tree(to: Path) -> Path:
    """A copy of the work tree for one worker."""
    to.mkdir()
    for name in COPIED:
        shutil.copytree(REPOSITORY / name, to / name, symlinks=True, ignore=shutil.ignore_patterns(*NOT_COPIED))
    for file in REPOSITORY.iterdir():
        if file.is_file():
            shutil.copy2(file, to)
    (to / ".venv").symlink_to(sys.prefix)
    return to


def environment(tree: Path, **more: str) -> dict[str, str]:
    """The copy comes before the editable install. No byte code is written: it could be taken for that of a mutant."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JANITOR_", "PYTEST_"))}
    return {**kept, "PYTHONPATH": str(tree / "agent"), "PYTHONDONTWRITEBYTECODE": "1", **more}


def is_what_is_tested(tree: Path) -> None:
    """MutantError where the janitor that tests import is not the copy's."""
    argv = [sys.executable, "-c", "import janitor; print(janitor.__file__)"]
    imported = subprocess.run(argv, cwd=tree, env=environment(tree), capture_output=True, text=True, check=True).stdout
    if Path(imported.strip()) != tree / SOURCES / "__init__.py":
        raise MutantError(f"tests in {tree} would import {imported.strip()}: that is not the copy")


def run(argv: list[str], tree: Path, env: dict[str, str], limit_s: float) -> tuple[int | None, str]:
    """The exit code, None after the time limit, and what was said. Ends what it started, children included."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(argv, cwd=tree, env=env, stdout=output, stderr=output, start_new_session=True)
        try:
            code: int | None = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
        output.seek(0)
        return code, output.read()


def reach(tree: Path, notes: Path) -> Reach:
    """Run the quick tests without any mutant. One that fails is said, and not used. MutantError if they do not run."""
    left_out = [f"--ignore-glob=*/{name}" for name in LEFT_OUT]
    argv = [sys.executable, "-m", "pytest", *PYTEST, "-n", str(AT_ONCE), *left_out, *QUICK]
    code, said = run(argv, tree, environment(tree, **{TO: str(notes)}), BASELINE_S)
    if code not in (0, 1):
        why = f"do not end within {BASELINE_S:.0f} s" if code is None else "do not run"
        raise MutantError(f"the quick tests {why} without any mutant:\n{said}")
    for test in FAILED.findall(said):
        print(f"not used, because it fails without any mutant: {test}", flush=True)
    found: Reach = {}
    for file in notes.glob("*.json"):
        found |= {
            test: (seconds, frozenset(called)) for test, (seconds, called) in json.loads(file.read_text()).items()
        }
    return found


def chosen(mutant: Mutant, text: str, reached: Reach) -> list[str]:
    """The tests that call what it changes, the fastest first; for code of the module, those that call any of it."""
    function = mutant.function(text)
    if function:
        tests = [test for test, (_, called) in reached.items() if f"{mutant.file}:{function}" in called]
    else:
        prefix = f"{mutant.file}:"
        tests = [test for test, (_, called) in reached.items() if any(one.startswith(prefix) for one in called)]
    return sorted(tests, key=lambda test: (reached[test][0], test))


@contextmanager
def mutated(mutant: Mutant, tree: Path) -> Iterator[None]:
    """The copy with the mutant in it."""
    file = tree / mutant.path
    before = file.read_text()
    file.write_text(mutant.applied(before))
    try:
        yield
    finally:
        file.write_text(before)


def attempt(mutant: Mutant, tree: Path, server: Server, reached: Reach, scratch: Path) -> Result:
    """Run the tests that could notice it, cases before others. MutantError where they could not be run."""
    began = time.monotonic()
    text = (tree / mutant.path).read_text()
    where = f"{mutant.path}:{mutant.line(text)}"
    by = ""
    tests = chosen(mutant, text, reached)
    cases = [test for test in tests if test.startswith(CASES)]
    with mutated(mutant, tree):
        for some in (cases, [test for test in tests if not test.startswith(CASES)]):
            by = by or (noticed(mutant, some, server, reached, scratch) if some else "")
    return Result(mutant, where, by, time.monotonic() - began)


def noticed(mutant: Mutant, tests: list[str], server: Server, reached: Reach, scratch: Path) -> str:
    """The first of these tests that fails; "" where none does."""
    scratch.write_text("\n".join(tests))
    files = sorted({test.partition("::")[0] for test in tests})
    limit_s = LEAST_S + 3 * sum(reached[test][0] for test in tests)
    code, said = server.run([*PYTEST, "-x", *files], {TESTS: str(scratch)}, limit_s)
    if code is None:
        return f"the time limit of {limit_s:.0f} s"
    failed = FAILED.findall(said)
    if code == 0:
        return ""
    if code == 1 and failed:
        return str(failed[0])
    raise MutantError(f"mutant '{mutant.name}': pytest ended with {code}:\n{said}")


def main(words: list[str]) -> int:
    began = time.monotonic()
    mutants = [m for m in read_list() if not words or any(word in f"{m.name} {m.file}" for word in words)]
    for mutant in mutants:
        mutant.applied((REPOSITORY / mutant.path).read_text())
    with tempfile.TemporaryDirectory(prefix="janitor-mutants-") as directory:
        here = Path(directory).resolve()
        trees = [copy_tree(here / f"tree-{number}") for number in range(AT_ONCE)]
        for tree in trees:
            is_what_is_tested(tree)
        (here / "notes").mkdir()
        reached = reach(trees[0], here / "notes")
        print(f"{len(reached)} quick tests pass, after {time.monotonic() - began:.0f} s", flush=True)

        free: SimpleQueue[tuple[Path, Server]] = SimpleQueue()
        for tree in trees:
            free.put((tree, Server(tree, environment(tree))))

        def one(mutant: Mutant) -> Result:
            tree, server = free.get()
            try:
                return attempt(mutant, tree, server, reached, here / f"{tree.name}.tests")
            finally:
                free.put((tree, server))

        results: list[Result] = []
        with ThreadPoolExecutor(AT_ONCE) as workers:
            for result in workers.map(one, mutants):
                results.append(result)
                said = f"noticed by {result.by}" if result.by else "SURVIVED"
                print(f"{result.mutant.name}: {said} ({result.seconds:.1f} s)", flush=True)
        for _ in trees:
            free.get()[1].close()
    survivors = [result for result in results if not result.by]
    print(f"\n{len(results) - len(survivors)} of {len(results)} were noticed, in {time.monotonic() - began:.0f} s")
    for result in survivors:
        print(f"survived: {result.where}: {result.mutant.name}")
    return 1 if survivors else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except MutantError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
