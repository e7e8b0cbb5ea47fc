"""Audit chains and cases with entries, made without the pipeline."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from ctdeface_shared.audit.chain import segments
from ctdeface_shared.audit.entry import CaseEnd, Outcome
from ctdeface_shared.audit.inspection import Chain, Trust, inspect_chains
from ctdeface_shared.audit.keys import PublicKey, load_private_key
from ctdeface_shared.audit.writer import AuditLog, AuditTarget, Signer
from ctdeface_shared.commands import audit
from ctdeface_shared.commands.main import main
from ctdeface_shared.exit_codes import EXIT_OK
from ctdeface_shared.settings.loading import keys, variable_of
from ctdeface_shared.storage.spool import Spool
from ctdeface_worker.publishing.audit_entry import attest
from ctdeface_worker.publishing.commit import publish
from ctdeface_worker.publishing.outbox import OutputRules
from ctdeface_worker.report.model import CaseReport
from tests.integration.test_publishing import NEW, NEWEST, stage

UNSIGNED_TRUST = Trust()


def an_end(job: str, outcome: Outcome = Outcome.RELEASED, submitted_at: str = NEW) -> CaseEnd:
    """Describe how a case ended that never was."""
    return CaseEnd(
        job_id=job, submitted_at=submitted_at, outcome=outcome, report="r" * 64, program="0"
    )


def trusting(*keys: PublicKey, allow_unsigned: bool = False) -> Trust:
    """Trust these keys only."""
    return Trust(keys={key.name: key.is_signature for key in keys}, allow_unsigned=allow_unsigned)


@contextmanager
def log_in(
    root: Path, key: Signer | None = None, *, segment_bytes: int = 1_000_000
) -> Iterator[AuditLog]:
    """Write into `root/audit` with the locks in `root/locks`."""
    for name in ("audit", "locks"):
        (root / name).mkdir(exist_ok=True)
    with AuditLog(
        AuditTarget(
            folder=root / "audit",
            locks=root / "locks",
            writer="host",
            stale_seconds=4000.0,
            key=key,
            segment_bytes=segment_bytes,
        )
    ) as log:
        yield log


def write(
    root: Path, *jobs: str, key: Signer | None = None, segment_bytes: int = 1_000_000
) -> None:
    """Enter these jobs, one after the other, with a writer that ends afterwards."""
    with log_in(root, key, segment_bytes=segment_bytes) as log:
        for job in jobs:
            assert log.record(an_end(job))


def lines_of(root: Path, chain: str = "host.1") -> list[bytes]:
    """Every line of a chain, line ends included."""
    return [
        line
        for file in segments(root / "audit" / chain)
        for line in file.read_bytes().splitlines(keepends=True)
    ]


def rewrite(root: Path, lines: list[bytes], chain: str = "host.1") -> None:
    """Put other lines into the first segment of a chain."""
    (root / "audit" / chain / "000001.jsonl").write_bytes(b"".join(lines))


def seen(root: Path, trust: Trust = UNSIGNED_TRUST) -> tuple[Chain, ...]:
    """Read all chains."""
    return inspect_chains(root / "audit", trust)


def problems(root: Path, trust: Trust = UNSIGNED_TRUST) -> list[str]:
    """What is wrong with the chains."""
    return [problem for chain in seen(root, trust) for problem in chain.problems]


def rules_with(log: AuditLog, spool: Spool) -> OutputRules:
    """Rules of publication that enter a case before it is done, as the commands have them."""
    return OutputRules(
        stale_seconds=4000.0, before_done=partial(attest, log, spool, Outcome.REJECTED)
    )


def release(
    spool: Spool,
    log: AuditLog,
    job: str,
    text: str = "new",
    *,
    case: str = "a",
    created_at: str = NEW,
) -> CaseReport:
    """Publish a case of two files and enter it."""
    report, staged = stage(spool, job, text, created_at, case)
    return publish(spool, report, staged, rules_with(log, spool))


def alone(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Go into a folder, without settings, and do not wait for a service that there is not."""
    monkeypatch.chdir(folder)
    for key in keys():
        monkeypatch.delenv(variable_of(key), raising=False)
    monkeypatch.setattr(audit, "RECHECK_SECONDS", 0.0)


def spool_in(root: Path) -> Spool:
    """The folders of a batch."""
    return Spool.beside(root / "out", root / "out.ctdeface")


def make_batch(root: Path) -> Path:
    """Make a key pair and a batch of three released cases; return the folder."""
    assert main(["audit", "key", str(root / "audit.key")]) == EXIT_OK
    spool = spool_in(root)
    spool.prepare(outbox_mode=0o750)
    with log_in(root / "out.ctdeface", load_private_key(root / "audit.key")) as log:
        release(spool, log, "one", case="a")
        release(spool, log, "two", "other", case="group/b")
        release(spool, log, "old", "old", case="c")
        release(spool, log, "newer", "new", case="c", created_at=NEWEST)
    return root


def verify(
    capsys: pytest.CaptureFixture[str], *more: str, public_key: str | None = "audit.key.pub"
) -> tuple[int, list[str]]:
    """Run `ctdeface audit verify --out out --json`; return its exit code and the problems."""
    capsys.readouterr()
    given = ["--public-key", public_key] if public_key else []
    code = main(["audit", "verify", "--out", "out", "--json", *given, *more])
    told = json.loads(capsys.readouterr().out)
    assert told["intact"] == (code == EXIT_OK)
    return code, told["problems"]
