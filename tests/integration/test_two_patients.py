"""Two patients under one name: never one file of one in the output of the other.

Both have the same PatientID; their files have the same sizes and times, and the same or other
names. Everything that a hospital does with a name comes in every order.
"""

import os
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest

from ctdeface_shared.jobs.options import Originals
from tests.support.service.attacked import QUIET, AttackedService, attacked_service
from tests.support.service.patients import ADAMS, BAKER, Files, Patient, slices_in

_IMAGES = 3
_CONSTANT_TIME = 315_532_800
"""1980-01-01, which zip programs write when they are to give the same file again."""


@dataclass(frozen=True, slots=True)
class Story:
    """Two drops under one name.

    Attributes:
        names: whether the files of both have the `same` or `other` names.
        first: `folder` or `zip`.
        second: `folder` or `zip`.
        order: what happens when; stories of different orders have different names.
    """

    names: str
    first: str
    second: str
    order: str = "after"

    @property
    def case(self) -> str:
        """The name of both drops."""
        return f"{self.order}-{self.names}-{self.first}-{self.second}"

    def drop_first(self, site: AttackedService) -> None:
        """Drop the first patient."""
        _DROPS[self.first](site.inbox / self.case, ADAMS.images(_IMAGES))

    def drop_second(self, site: AttackedService) -> None:
        """Drop the second patient."""
        prefix = "IM" if self.names == "same" else "CT"
        _DROPS[self.second](site.inbox / self.case, BAKER.images(_IMAGES, prefix=prefix))

    def drop_late(self, site: AttackedService, patient: Patient) -> None:
        """Drop one more slice of a patient."""
        _drop_folder(site.inbox / self.case, patient.images(1, first=_IMAGES + 1, prefix="LATE"))


def stories(order: str) -> list[Story]:
    """Return every pair of drops."""
    kinds = ("folder", "zip")
    return [Story(*parts, order) for parts in product(("same", "other"), kinds, kinds)]


def _drop_folder(place: Path, files: Files) -> None:
    hidden = place.with_name(f".{place.name}.new")
    hidden.mkdir()
    for name, content in files.items():
        (hidden / name).write_bytes(content)
        os.utime(hidden / name, (_CONSTANT_TIME, _CONSTANT_TIME))
    if place.exists():  # originals are kept, or not taken yet: somebody replaces the folder
        shutil.move(place, place.with_name(f".{place.name}.{time.monotonic_ns()}.old"))
    hidden.rename(place)


def _drop_zip(place: Path, files: Files) -> None:
    hidden = place.with_name(f".{place.name}.zip")
    with zipfile.ZipFile(hidden, "w") as packed:
        for name, content in files.items():
            packed.writestr(zipfile.ZipInfo(name), content)  # 1980, as if made to be reproducible
    os.utime(hidden, (_CONSTANT_TIME, _CONSTANT_TIME))
    hidden.rename(place.with_name(f"{place.name}.zip"))


_DROPS: dict[str, Callable[[Path, Files], None]] = {"folder": _drop_folder, "zip": _drop_zip}


@pytest.fixture(scope="module", params=list(Originals))
def shared_site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AttackedService]:
    """One service for each rule about originals."""
    folder = tmp_path_factory.mktemp("two-patients")
    settings = {"spool": {"originals": str(request.param)}}
    with attacked_service(folder, user=None, settings=settings) as running:
        yield running


@pytest.fixture
def site(shared_site: AttackedService) -> Iterator[AttackedService]:
    """The service, running, with nothing in inbox and outbox."""
    shared_site.start()
    yield shared_site
    for place in (shared_site.inbox, shared_site.spool.outbox):
        for entry in place.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def released(site: AttackedService, story: Story) -> list[frozenset[tuple[str, int]]]:
    """Return the released slices of every folder that the story's name led to.

    Raises:
        AssertionError: a folder holds slices of two patients.
    """
    folders = sorted(site.spool.outbox.glob(f"{story.case}*"))
    found = [
        frozenset(slice_ for path in folder.iterdir() for slice_ in slices_in(path.read_bytes()))
        for folder in folders
    ]
    for slices in found:
        assert len({patient for patient, _ in slices}) <= 1, (story, sorted(slices))
    return found


def expect(site: AttackedService, stories: Sequence[Story], *patients: str, late: int = 0) -> None:
    """Wait until exactly these patients are released, each in a folder of its own.

    Args:
        site: the service.
        stories: whose names are looked at.
        patients: names of the patients.
        late: slices that came late, of each patient.
    """
    numbers = range(1, _IMAGES + late + 1)
    expected = sorted([(name, number) for number in numbers] for name in patients)

    def are_right() -> bool:
        found = [released(site, story) for story in stories]
        return all(sorted(map(sorted, slices)) == expected for slices in found)

    site.until(are_right)


def release_first(site: AttackedService, stories: Sequence[Story]) -> None:
    """Drop every first patient, and wait for the releases."""
    for story in stories:
        story.drop_first(site)
    expect(site, stories, "adams")


def test_a_second_patient_after_the_first_was_released_is_a_case_of_its_own(
    site: AttackedService,
) -> None:
    """It was taken for late files of the first one, or for the first one dropped again."""
    pairs = stories("after")
    release_first(site, pairs)
    for story in pairs:
        story.drop_second(site)
    expect(site, pairs, "adams", "baker")


def test_a_second_patient_while_the_first_waits_for_a_worker_is_a_case_of_its_own(
    site: AttackedService,
) -> None:
    """Both jobs are open at the same time."""
    pairs = stories("waits")
    site.processes["worker"].end()
    for story in pairs:
        story.drop_first(site)
    site.until(lambda: site.published() >= len(pairs))
    for story in pairs:
        story.drop_second(site)
    time.sleep(4 * QUIET)
    site.start()
    expect(site, pairs, "adams", "baker")


def test_a_second_patient_while_the_watcher_is_down_is_a_case_of_its_own(
    site: AttackedService,
) -> None:
    """It is found at the start, without the first one."""
    pairs = stories("down")
    release_first(site, pairs)
    site.processes["watcher"].end()
    for story in pairs:
        story.drop_second(site)
    site.start()
    expect(site, pairs, "adams", "baker")


def test_two_patients_found_at_the_start_are_two_cases(site: AttackedService) -> None:
    """A folder and a zip file of the same name."""
    pairs = [story for story in stories("start") if story.first != story.second]
    site.processes["watcher"].end()
    for story in pairs:
        story.drop_first(site)
        story.drop_second(site)
    site.start()
    expect(site, pairs, "adams", "baker")


def test_a_replay_beside_a_second_patient_repeats_one_of_them(site: AttackedService) -> None:
    """A replay takes the originals of its job, not what is in the inbox under its name."""
    pairs = stories("replay")
    release_first(site, pairs)
    site.processes["watcher"].end()
    for story in pairs:
        story.drop_second(site)
    replayed = [site.command("replay", story.case).returncode for story in pairs]
    site.start()
    expect(site, pairs, "adams", "baker")
    replayed += [site.command("replay", story.case).returncode for story in pairs]
    site.until(site.is_idle)
    expect(site, pairs, "adams", "baker")
    if site.service.settings.spool.originals is Originals.ARCHIVE:
        assert not any(replayed)


def test_late_slices_go_to_their_own_patient_or_to_none(site: AttackedService) -> None:
    """Of both patients, under the name that both were dropped with."""
    pairs = stories("late")
    release_first(site, pairs)
    for story in pairs:
        story.drop_second(site)
    expect(site, pairs, "adams", "baker")
    for patient in (ADAMS, BAKER):
        for story in pairs:
            story.drop_late(site, patient)
        site.pass_case(None, f"after-{patient.name}")
        site.until(site.is_idle)
    for story in pairs:
        found = [slices for slices in released(site, story) if len(slices) > 1]
        assert len(found) == 2
        assert {("adams", 1), ("baker", 1)} <= frozenset().union(*found)
