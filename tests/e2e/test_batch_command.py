"""`ctdeface deface` as a user runs it: what comes out, what is said, and the exit codes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from ctdeface_shared.exit_codes import EXIT_PARTIAL
from ctdeface_worker.phantom.dicom import PLAIN
from ctdeface_worker.report.model import CaseReport, State
from tests.support.cases import add_incomplete_series, truncate, write_small_case

COMMAND = Path(sys.executable).parent / "ctdeface"
AWKWARD = os.fsdecode(b"M\xfcller")
"""A name that is no UTF-8, as old archives have them."""


def deface(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command without a terminal."""
    environment = {**os.environ, "CTDEFACE_OUTPUT__MIN_FREE_GB": "0.1"}
    return subprocess.run(
        [COMMAND, "deface", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Folders:
    """Everything that runs share."""

    scans: Path
    out: Path
    nifti: Path
    first: subprocess.CompletedProcess[str]

    @property
    def state(self) -> Path:
        """The state root."""
        return self.out.with_name("out.ctdeface")

    def reports(self, case: str) -> list[CaseReport]:
        """Every report.json of a case."""
        return [
            CaseReport.from_json(path.read_bytes())
            for path in (self.state / "reports" / case).glob("*/report.json")
        ]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Run once over a good case with an awkward name and a damaged case, keeping everything."""
    root = tmp_path_factory.mktemp("batch")
    scans = root / "scans"
    first, *_ = write_small_case(scans / "site" / AWKWARD)
    first.rename(first.with_name(f"{AWKWARD}.dcm"))
    damaged = scans / "site" / "damaged"
    truncate(write_small_case(damaged, replace(PLAIN, patient_id="OTHER"))[3])
    done = deface(
        "-i",
        scans,
        "-o",
        root / "out",
        "--case-depth",
        "2",
        "--nifti-root-out",
        root / "nifti",
        "--keep-work",
        "--jobs",
        "2",
    )
    return Folders(scans=scans, out=root / "out", nifti=root / "nifti", first=done)


def names(folder: Path) -> set[str]:
    """Every file below a folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_one_case_is_released_and_the_damaged_one_refused_with_exit_code_1(
    folders: Folders,
) -> None:
    """The batch goes on past a refusal, and OUT holds nothing of the refused case."""
    assert folders.first.returncode == 1, folders.first.stderr
    lines = dict(line.split("\t", 1) for line in folders.first.stdout.splitlines() if "\t" in line)
    assert lines[r"site/M\udcfcller"].startswith("released\t")
    assert lines["site/damaged"].startswith("refused\t")
    (refusal,) = folders.reports("site/damaged")
    why = f"{refusal.result.code}: {refusal.result.reason}"
    assert lines["site/damaged"].split("\t")[2] == why
    assert "resource_tracker" not in folders.first.stderr
    assert names(folders.out) == names(folders.scans) - {
        name for name in names(folders.scans) if "damaged" in name
    }
    assert refusal.state is State.REFUSED
    assert [report.state for report in folders.reports(f"site/{AWKWARD}")] == [State.DONE]


def test_nifti_and_intermediates_are_where_they_were_asked_for(folders: Folders) -> None:
    """Named after the series; the undefaced input stays in the work folder."""
    (report,) = folders.reports(f"site/{AWKWARD}")
    (series,) = report.result.released_series
    assert names(folders.nifti) == {f"site/{AWKWARD}/{series}_defaced.nii.gz"}
    kept = names(folders.state / "work" / "site" / AWKWARD)
    assert kept == {f"nifti_in/{series}_0000.nii.gz", f"nifti_out/{series}_mask.nii.gz"}
    assert list((folders.state / "staging").iterdir()) == []
    assert [path.name for path in (folders.state / "work").iterdir()] == ["site"]


def test_the_report_is_one_file_with_a_picture_and_without_links(folders: Folders) -> None:
    """It can be sent on by itself."""
    (page,) = (folders.state / "reports" / "site" / AWKWARD).glob("*/report.html")
    text = page.read_text(encoding="utf-8")
    assert text.count("data:image/png;base64,") == 1
    assert 'src="preview' not in text


def test_the_page_of_all_cases_has_a_row_for_each(folders: Folders) -> None:
    """The refused case and the released one, beside the reports."""
    page = (folders.state / "reports" / "index.html").read_text(encoding="utf-8")
    assert page.count("<tr data-job=") == 2
    assert "damaged" in page


def test_the_log_has_a_line_for_each_case_and_no_name(folders: Folders) -> None:
    """JSON with job ids only, readable by the owner only."""
    log = folders.state / "log.jsonl"
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    ended = {line["job_id"]: line["code"] for line in lines if line["event"] == "case_ended"}
    jobs = {
        report.job_id: report
        for case in ("damaged", AWKWARD)
        for report in folders.reports(f"site/{case}")
    }
    assert ended.keys() >= jobs.keys()
    assert not [
        word
        for word in ("ller", "damaged", "site", "PHANTOM")
        if word in log.read_text(encoding="utf-8")
    ]
    assert log.stat().st_mode & 0o777 == 0o600


@pytest.fixture(scope="module")
def good_case(folders: Folders, tmp_path_factory: pytest.TempPathFactory) -> list[str | Path]:
    """Arguments of a run over the good case alone."""
    scans = tmp_path_factory.mktemp("good")
    shutil.copytree(folders.scans / "site" / AWKWARD, scans / "site" / AWKWARD)
    return ["-i", scans, "-o", folders.out, "--case-depth", "2"]


def test_a_second_run_skips_what_is_released_and_makes_only_the_nifti_that_is_missing(
    folders: Folders, good_case: list[str | Path], tmp_path: Path
) -> None:
    """Missing NIfTI files are added without touching the DICOM; then nothing is left to do."""
    file = min((folders.out / "site" / AWKWARD).iterdir())
    inode, reports = file.stat().st_ino, folders.reports(f"site/{AWKWARD}")
    made = deface(*good_case, "--nifti-root-out", tmp_path)
    assert made.returncode == 0, made.stderr
    assert len(names(tmp_path)) == 1
    assert file.stat().st_ino == inode
    assert folders.reports(f"site/{AWKWARD}") == reports
    skipped = deface(*good_case, "--nifti-root-out", tmp_path)
    assert skipped.returncode == 0
    assert "\tskipped\t" in skipped.stdout


def test_redo_repeats_and_archives_the_earlier_output_under_its_job(
    folders: Folders, good_case: list[str | Path]
) -> None:
    """The earlier report stays beside the new one."""
    (before,) = folders.reports(f"site/{AWKWARD}")
    archive = folders.state / "archive" / "outputs" / "site" / AWKWARD
    assert not archive.exists()
    done = deface(*good_case, "--redo")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in archive.iterdir()] == [before.job_id]
    assert names(archive / before.job_id) == names(folders.out / "site" / AWKWARD)
    (after,) = folders.reports(f"site/{AWKWARD}")
    assert after.created_at > before.created_at
    kept = folders.state / "reports" / "site" / AWKWARD / before.job_id / "earlier-1.json"
    assert CaseReport.from_json(kept.read_bytes()) == before


def test_a_partial_release_and_a_replaced_output_are_named(tmp_path: Path) -> None:
    """Exit code 3, the numbers of files and series, and the archived earlier output."""
    case = tmp_path / "scans" / "a"
    files = write_small_case(case)
    add_incomplete_series(case)
    command: list[str | Path] = ["-i", tmp_path / "scans", "-o", tmp_path / "out"]
    command += ["--on-series-failure", "withhold"]
    parts = f"{len(files)} of {2 * len(files) - 1} files; 1 series failed"
    first = deface(*command)
    assert first.returncode == EXIT_PARTIAL, first.stderr
    assert f"a: released in part ({parts}) in " in first.stdout
    row = next(line.split("\t") for line in first.stdout.splitlines() if "\t" in line)
    assert (row[1], row[3], row[4]) == ("released in part", parts, parts.partition(" files")[0])
    skipped = deface(*command)
    assert skipped.returncode == EXIT_PARTIAL
    assert f"a: already released in part ({parts}), skipped" in skipped.stdout
    other = deface(*command, "--fill", "p10")
    assert other.returncode == EXIT_PARTIAL, other.stderr
    assert other.stdout.count("replaces the earlier output") == 2
    assert len(list((tmp_path / "out.ctdeface" / "archive" / "outputs" / "a").iterdir())) == 1


def test_a_folder_without_dicom_is_told_with_exit_code_2(tmp_path: Path) -> None:
    """Nothing is made."""
    (tmp_path / "scans" / "notes").mkdir(parents=True)
    (tmp_path / "scans" / "notes" / "a.txt").write_text("a")
    done = deface("-i", tmp_path / "scans", "-o", tmp_path / "out")
    assert done.returncode == 2
    assert f"No DICOM cases found under {tmp_path / 'scans'}" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["scans"]


def test_a_setting_that_cannot_be_is_told_with_exit_code_78(tmp_path: Path) -> None:
    """As one line."""
    done = deface("-i", tmp_path, "-o", tmp_path.with_name("out"), "--fill", "5")
    assert done.returncode == 78
    assert done.stderr.count("\n") == 1


def test_ctrl_c_ends_the_batch_and_leaves_nothing_temporary(tmp_path: Path) -> None:
    """Exit code 130; no case is called refused because somebody stopped it."""
    write_small_case(tmp_path / "scans" / "a")
    command: list[str | Path] = [
        COMMAND,
        "deface",
        "-i",
        tmp_path / "scans",
        "-o",
        tmp_path / "out",
    ]
    state = tmp_path / "out.ctdeface"
    environment = {**os.environ, "CTDEFACE_OUTPUT__MIN_FREE_GB": "0.1"}
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env=environment,
    ) as process:
        while process.poll() is None and not any((state / "staging").glob("*/dicom/*")):
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)
        said, complaints = process.communicate(timeout=30)
    assert process.returncode == 130, complaints
    assert b"refused" not in said
    assert said.decode().splitlines()[-1].startswith("stopped: 0 of 1 cases have ended")
    assert b"resource_tracker" not in complaints
    assert [
        path
        for name in ("staging", "work", "locks", "reports")
        for path in (state / name).iterdir()
    ] == []
    assert list((tmp_path / "out").iterdir()) == []
