"""Every command of README and docs runs and prints what is quoted, or a comment says why not."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from ctdeface_shared.settings.service import find_service
from tests.integration.rabbitmq_node import RabbitNode, free_ports
from tests.support.cases import write_small_case
from tests.support.documents import (
    ROOT,
    Block,
    Quote,
    Source,
    Way,
    blocks,
    pages,
    quotes,
    read,
)

SHOWN = {str(page.relative_to(ROOT)): tuple(blocks(page)) for page in pages()}
PRINTED = [quote for page in pages() for quote in quotes(page) if quote.source is Source.COMMAND]
HERE = {Way.RUN, Way.STAYS, Way.ALONE}
RUN = [name for name, found in SHOWN.items() if any(block.way in HERE for block in found)]
ELSEWHERE = [block for found in SHOWN.values() for block in found if block.way is Way.ELSEWHERE]
NOT_RUN = [block for found in SHOWN.values() for block in found if block.way is Way.NOT_RUN]
STAYING = re.compile(r"ctdeface (up|watch|work)\b(?!.*--(once|help))")
ENDED = {0, 130}
"""By itself, or by Ctrl-C."""
QUICK = {
    "CTDEFACE_METRICS__WATCH_PORT": "0",
    "CTDEFACE_METRICS__WORK_PORT": "0",
    "CTDEFACE_DEFACE__SEGMENTER": "geometric",
    "CTDEFACE_OUTPUT__MIN_FREE_GB": "0.1",
    "CTDEFACE_WATCH__QUIET_PERIOD": "0.5",
    "CTDEFACE_WATCH__RESCAN_INTERVAL": "0.5",
}
QUEUE = re.compile(r"amqps?://queue\.example(\.org)?")
"""The example queue of the pages."""
OUTSIDE = ("/srv/", "/backup/", "/restored/")
"""Root folders of the pages; here they are inside the test folder."""


def _environment() -> dict[str, str]:
    """A user's environment: no settings, and nothing of `make test`."""
    foreign = ("CTDEFACE_", "MAKE", "MFLAGS", "ARGS")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {
        **clean,
        **QUICK,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }


def _shell(command: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    script = ["bash", "-euc", command]
    return subprocess.run(
        script,
        cwd=folder,
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def _start_and_end(command: str, folder: Path) -> int:
    """Start a service, wait until it answers, and stop it with Ctrl-C."""
    (port,) = free_ports(1)
    port_setting = (
        {"CTDEFACE_METRICS__WATCH_PORT": str(port)}
        if " watch" in command
        else {"CTDEFACE_METRICS__WORK_PORT": str(port)}
    )
    environment = _environment() | ({} if " up" in command else port_setting)
    running = subprocess.Popen(
        ["bash", "-c", f"exec {command}"],
        cwd=folder,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    with running:
        assert running.stderr is not None
        if " up" in command:
            assert running.stderr.readline()
        while running.poll() is None and " up" not in command and not _is_alive(port):
            time.sleep(0.1)
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=120)
    return running.returncode


def _is_alive(port: int) -> bool:
    """Whether a service answers at its page for that."""
    with (
        suppress(OSError),
        urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as answer,
    ):
        return bool(answer.status == 200)
    return False


def _plain(line: str, world: Path) -> str:
    """Return a line without figures, the test's folder and the width of its columns."""
    line = re.sub(r"\d+(?:[.,]\d+)*", "0", line.replace(str(world), ""))
    return " ".join(line.split())


def _require_printed(quote: Quote, printed: str, world: Path) -> None:
    """Fail unless every quoted line was printed, apart from figures; `…` shortens a line."""
    there = [_plain(line, world) for line in printed.splitlines()]
    missing = [
        line
        for line in quote.lines
        if (
            not any(each.startswith(_plain(line.removesuffix("…"), world)) for each in there)
            if line.endswith("…")
            else _plain(line, world) not in there
        )
    ]
    assert not missing, f"{quote.page}:{quote.line}: not printed: {missing}\n{printed}"


def _run(block: Block, world: Path, queue: str) -> None:
    """Run the commands of a block in its page's folder, and compare what the page quotes."""
    commands = [_moved(command, world, queue) for command in block.commands]
    if block.way is Way.STAYS:
        for command in commands:
            code = (
                _start_and_end(command, world)
                if STAYING.search(command)
                else _shell(command, world).returncode
            )
            assert code in ENDED, f"{block.page}:{block.line}: {command} ended with {code}"
        return
    for number, together in enumerate(
        commands if block.way is Way.ALONE else ["\n".join(commands)]
    ):
        folder = world
        if block.way is Way.ALONE:
            folder = world.with_name(f"{world.name}-{block.line}-{number}")
            shutil.copytree(world, folder, symlinks=True)
        done = _shell(together.replace(str(world), str(folder)), folder)
        assert done.returncode == block.exit_code, (
            f"{block.page}:{block.line}: {done.returncode}\n{together}"
            f"\n{done.stdout}\n{done.stderr}"
        )
        for quote in PRINTED:
            if (quote.page, quote.command) == (block.page, block.line):
                _require_printed(quote, done.stdout, folder)


def _moved(command: str, world: Path, queue: str) -> str:
    """Return a command with the test's folders and queue, and the project's folder for make."""
    command = QUEUE.sub(queue, command)
    for outside in OUTSIDE:
        command = re.sub(rf"(?<![\w.]){outside}", f"{world}{outside}", command)
    if make := re.match("make (.*)", command):
        folders = re.sub(r"\b(IN|OUT)=", rf"\1={world}/", make[1])
        return f"make --silent --assume-old=setup --directory={ROOT} {folders}"
    return command


def _slices_are_missing(world: Path) -> None:
    """Cases without their middle slices, in a batch's input and refused by a service."""
    shutil.rmtree(world / "scans")
    for case in (world / "scans/slices-are-missing", world / "srv/ctdeface/inbox/case-0007"):
        write_small_case(case)
        files = sorted(case.glob("*.dcm"))
        for file in files[len(files) // 2 : len(files) // 2 + 3]:
            file.unlink()
    assert _shell(f"ctdeface up --spool {world / 'srv/ctdeface'} --once", world).returncode == 1


def _letter(case: Path) -> None:
    """A case without an image."""
    case.mkdir(parents=True)
    (case / "letter.dcm").write_text("no image\n", encoding="utf-8")


def _refused_case(world: Path) -> None:
    """A service that refused case-0007, for pages about what to do then."""
    _letter(world / "srv/ctdeface/inbox/case-0007")
    (world / "ctdeface.toml").write_text('[spool]\nroot = "srv/ctdeface"\n', encoding="utf-8")
    assert _shell("ctdeface up --once", world).returncode == 1


def _released_and_waiting(world: Path) -> None:
    """A service with a case that is released and one that waits."""
    spool = world / "srv/ctdeface"
    write_small_case(spool / "inbox/case-0001")
    done = _shell(f"ctdeface up --spool {spool} --once", world)
    assert done.returncode == 0, done.stderr
    write_small_case(spool / "inbox/case-0002")


PREPARED: dict[str, Callable[[Path], object]] = {
    "docs/run/backup.md": _released_and_waiting,
    "docs/run/drills.md": lambda world: write_small_case(
        world / "srv/drill/inbox/synthetic-head-1"
    ),
    "docs/run/operating.md": _refused_case,
    "docs/run/batch.md": lambda world: _letter(world / "scans/no-image"),
    "docs/reference/refusals.md": _slices_are_missing,
    "docs/run/upgrading.md": lambda world: find_service(None, world / "srv/ctdeface").prepare(),
}
"""Preparation that a page assumes, beside a folder `scans` with a case."""

SEEN: dict[str, tuple[str, ...]] = {
    "docs/run/backup.md": (
        "restored/ctdeface/outbox/case-0001/*.dcm",
        "restored/ctdeface/outbox/case-0002/*.dcm",
    ),
    "docs/run/drills.md": (
        "srv/drill/outbox/synthetic-head-1/*.dcm",
        "srv/drill/quarantine/no-image/*/report.json",
    ),
    "docs/start/first-case.md": (
        "demo/defaced/synthetic-head-1/*.dcm",
        "defaced/case-1/*.dcm",
        "spool/inbox",
    ),
}
"""Files that exist at the end of a page."""


@pytest.mark.parametrize("page", RUN)
def test_every_command_of_a_page_runs(
    page: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """In the order of the page, in one folder, with the exit codes that the page names."""
    world = tmp_path / "world"
    world.mkdir()
    write_small_case(world / "scans/case-1")
    if page in PREPARED:
        PREPARED[page](world)
    here = [block for block in SHOWN[page] if block.way in HERE]
    needs_queue = any(QUEUE.search(command) for block in here for command in block.commands)
    node: RabbitNode | None = request.getfixturevalue("rabbitmq") if needs_queue else None
    if node:
        assert _shell(f"ctdeface broker init --url {node.url}", world).returncode == 0
    for block in here:
        _run(block, world, node.url if node else "")
    assert not [pattern for pattern in SEEN.get(page, ()) if not list(world.glob(pattern))]


@pytest.mark.parametrize("block", ELSEWHERE, ids=lambda block: f"{block.page}:{block.line}")
def test_the_test_that_runs_a_command_elsewhere_is_there(block: Block) -> None:
    """The file exists and has tests."""
    assert "def test_" in (ROOT / block.reason).read_text(encoding="utf-8")


@pytest.mark.parametrize("block", NOT_RUN, ids=lambda block: f"{block.page}:{block.line}")
def test_a_command_that_is_not_run_says_why(block: Block) -> None:
    """The reason is a sentence, not a word."""
    assert len(block.reason.split()) > 2


@pytest.mark.parametrize(
    "text",
    ["<!-- not run -->\n\n    ctdeface up\n", "<!-- not run: needs root -->\n\nNothing here.\n"],
)
def test_a_comment_that_is_misspelled_is_noticed(text: str) -> None:
    """Neither a wrong word nor a comment before no command is passed over."""
    with pytest.raises(ValueError, match=r"page\.md:3"):
        list(read("page.md", text))


def test_blocks_are_read_with_continued_lines_and_without_their_explanations() -> None:
    """Indented and console blocks are commands; a comment belongs to the next block."""
    text = (
        "Do:\n\n<!-- exits with 1 -->\n\n    a --b \\\n        --c     says c\n"
        "\n```console\n$ d\nshown\n```\n\n```text\ne\n```\n"
    )
    first, second = read("page.md", text)
    assert (first.commands, first.exit_code, first.line) == (("a --b --c",), 1, 5)
    assert (second.commands, second.exit_code) == (("d",), 0)
