"""`ctdeface model` installs networks completely or not at all, and detects changes."""

import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import copytree

import pytest

from ctdeface_shared.commands.main import main
from ctdeface_shared.errors import ConfigurationError
from ctdeface_shared.storage.checksum import sha256_of
from ctdeface_worker.segmentation.choice import segmenter_named
from ctdeface_worker.segmentation.models import install as install_module
from ctdeface_worker.segmentation.models import store as models_store
from ctdeface_worker.segmentation.models.files import model_files
from ctdeface_worker.segmentation.models.install import InstallRequest, install
from ctdeface_worker.segmentation.models.packing import pack
from tests.support.networks import (
    network_of,
    tiny_model,
    tiny_plans,
    write_checkpoint,
    write_plans,
    write_safetensors,
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder some levels deep, with files that are not needed."""
    root = tiny_model(
        tmp_path_factory.mktemp("given")
        / "results/Dataset001_Face/nnUNetTrainer__nnUNetPlans__3d_fullres",
        ours=False,
    )
    (root / "fold_0/progress.png").write_bytes(b"a picture")
    (root / "debug.json").write_text("{}")
    return root


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of installed networks, which the command finds by its setting."""
    monkeypatch.setenv("CTDEFACE_MODELS__FOLDER", str(tmp_path / "models"))
    return tmp_path / "models"


def zipped(folder: Path, file: Path) -> Path:
    """Pack a folder with everything below it."""
    with zipfile.ZipFile(file, "w") as packed:
        for path in sorted(folder.rglob("*")):
            packed.write(path, path.relative_to(folder))
    return file


def test_a_model_goes_through_list_install_verify_and_use(
    tiny: Path, store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each action prints its result, and the network in use is marked."""
    assert main(["model", "list"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("shipped ")
    assert "mine" not in shown
    assert main(["model", "install", "mine", "--from", str(tiny.parents[2])]) == 0
    digest = model_files(tiny).digest()
    said = capsys.readouterr().out
    assert digest in said
    assert "origin: unverified" in said
    assert sorted(path.name for path in (store / "mine").rglob("*.*")) == [
        "MODEL.json",
        "checkpoint_final.pth",
        "dataset.json",
        "plans.json",
    ]
    assert main(["model", "use", "mine"]) == 0
    assert 'segmenter = "nnunet:mine"' in capsys.readouterr().out
    monkeypatch.setenv("CTDEFACE_DEFACE__SEGMENTER", "nnunet:mine")
    assert main(["model", "list"]) == 0
    assert f"{digest}   in use" in capsys.readouterr().out
    assert main(["model", "verify"]) == 0
    assert "as installed" in capsys.readouterr().out


def test_a_zip_file_and_its_folder_are_the_same_model(
    tiny: Path, store: Path, tmp_path: Path
) -> None:
    """Both have one digest; installing again replaces."""
    archive = zipped(tiny.parents[2], tmp_path / "given.zip")
    from_zip = install(InstallRequest(name="mine", source=str(archive)), store)
    from_folder = install(InstallRequest(name="mine", source=str(tiny)), store)
    assert from_zip.sha256 == from_folder.sha256
    assert (from_zip.source, from_folder.source) == ("given.zip", tiny.name)
    assert [model.name for model in models_store.installed(store)] == ["mine"]
    assert not list(store.glob(".*"))


def test_the_right_digest_makes_the_origin_verified_and_a_wrong_one_installs_nothing(
    tiny: Path, store: Path, tmp_path: Path
) -> None:
    """The digest of the zip file will do, and so will that of the model; any other refuses."""
    archive = zipped(tiny, tmp_path / "given.zip")
    for digest in (sha256_of(archive), model_files(tiny).digest().upper()):
        assert (
            install(InstallRequest(name="mine", source=str(archive), sha256=digest), store).origin
            == "verified"
        )
    with pytest.raises(ConfigurationError, match="another digest"):
        install(InstallRequest(name="other", source=str(archive), sha256="0" * 64), store)
    assert [model.name for model in models_store.installed(store)] == ["mine"]


def test_a_model_that_was_changed_is_not_used(
    tiny: Path, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With one byte less in the plans it cannot be chosen, and verify reports it."""
    model = install(InstallRequest(name="mine", source=str(tiny)), store)
    plans = model.folder / "plans.json"
    plans.write_text(plans.read_text().replace(" ", "", 1))
    with pytest.raises(ConfigurationError, match="not those that were installed"):
        segmenter_named("nnunet:mine", store)
    assert main(["model", "verify", "mine"]) == 78
    assert "mine   WRONG" in capsys.readouterr().out


def test_a_model_that_is_changed_between_choice_and_first_case_is_not_loaded(
    tiny: Path, store: Path
) -> None:
    """The digest is checked again when the network is loaded."""
    segmenter = segmenter_named(
        "nnunet:mine", install(InstallRequest(name="mine", source=str(tiny)), store).folder.parent
    )
    (store / "mine/fold_0/checkpoint_final.pth").write_bytes(b"something else")
    with pytest.raises(ConfigurationError, match="not those that were installed"):
        _ = segmenter._network  # type: ignore[attr-defined]  # loads it


def test_choosing_a_network_loads_no_torch(tiny: Path, store: Path) -> None:
    """The parent process checks the digest only; the child loads the network."""
    install(InstallRequest(name="mine", source=str(tiny)), store)
    script = """
import sys
from pathlib import Path
from ctdeface_worker.segmentation.choice import segmenter_named
segmenter_named('nnunet:mine', Path(sys.argv[1]))
print('torch' in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, store], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


def test_a_checkpoint_with_a_program_is_not_installed(tmp_path: Path, store: Path) -> None:
    """The network is built before it is installed, so unsafe files never reach the store."""
    made = tiny_plans()
    write_checkpoint(write_plans(tmp_path / "bad", made), network_of(made), extra=pytest.fail)
    with pytest.raises(ConfigurationError, match="nothing in it was executed"):
        install(InstallRequest(name="bad", source=str(tmp_path / "bad")), store)
    assert not list(store.iterdir())


def test_a_model_of_another_digest_is_not_even_read(tmp_path: Path, store: Path) -> None:
    """Its weights would be refused as well, but the digest is checked first."""
    damaged = tiny_model(tmp_path / "damaged")
    (damaged / "fold_0/checkpoint_final.pth").write_bytes(b"no checkpoint")
    with pytest.raises(ConfigurationError, match="another digest"):
        install(InstallRequest(name="mine", source=str(damaged), sha256="0" * 64), store)
    with pytest.raises(ConfigurationError, match="nothing in it was executed"):
        install(InstallRequest(name="mine", source=str(damaged)), store)


def test_names_in_a_zip_file_lead_nowhere(tiny: Path, store: Path, tmp_path: Path) -> None:
    """What is not a model's file is left in the archive, wherever its name points to."""
    archive = zipped(tiny, tmp_path / "given.zip")
    with zipfile.ZipFile(archive, "a") as packed:
        for name in (
            "../../escaped",
            "/escaped",
            "fold_0/../../../escaped",
            "fold_x/checkpoint_final.pth",
            "../fold_0/checkpoint_best.pth",
        ):
            packed.writestr(name, "x")
    install(InstallRequest(name="mine", source=str(archive)), store)
    assert not list(tmp_path.rglob("escaped"))
    assert {path.name for path in store.iterdir()} == {"mine"}
    assert not (tmp_path / "fold_0").exists()


def test_a_zip_file_that_unpacks_to_too_much_is_refused(
    tiny: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes are counted while they are unpacked; nothing is left of it."""
    monkeypatch.setattr(install_module, "LARGEST_BYTES", 1 << 10)
    with pytest.raises(ConfigurationError, match="the limit for a model"):
        install(
            InstallRequest(name="mine", source=str(zipped(tiny, tmp_path / "given.zip"))), store
        )
    assert not list(store.iterdir())


@pytest.mark.parametrize(
    ("name", "source", "why"),
    [
        ("../mine", "there", "not a valid name"),
        ("shipped", "there", "not a valid name"),
        ("mine", None, "name it by --from"),
        ("mine", "nowhere", "neither a folder nor a zip file"),
        ("mine", "empty", "holds no nnU-Net v2 model"),
    ],
)
def test_what_cannot_be_installed_is_refused_with_a_reason(
    tmp_path: Path, store: Path, name: str, source: str | None, why: str
) -> None:
    """Names that are paths, sources that are not there, folders without a model."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigurationError, match=why):
        install(InstallRequest(name=name, source=source and str(tmp_path / source)), store)


def test_a_folder_with_several_models_names_them(tiny: Path, store: Path, tmp_path: Path) -> None:
    """The user chooses, not the order of the names."""
    for name in ("one", "two"):
        copytree(tiny, tmp_path / "many" / name)
    with pytest.raises(ConfigurationError, match="one, two"):
        install(InstallRequest(name="mine", source=str(tmp_path / "many")), store)
    with pytest.raises(ConfigurationError, match="holds 2 nnU-Net v2 models"):
        install(
            InstallRequest(
                name="mine", source=str(zipped(tmp_path / "many", tmp_path / "many.zip"))
            ),
            store,
        )


class _Server(BaseHTTPRequestHandler):
    """Serves one file; the first response ends in the middle, later ones honor the range."""

    content = b""
    asked: tuple[str | None, ...] = ()

    def do_GET(self) -> None:
        """Answer a request."""
        wanted = self.headers.get("Range")
        type(self).asked += (wanted,)
        start = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted else 0
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(self.content) - start))
        self.send_header("Accept-Ranges", "bytes")
        if wanted:
            self.send_header(
                "Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}"
            )
        self.end_headers()
        self.wfile.write(self.content[start:] if wanted else self.content[: len(self.content) // 2])
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def served(content: bytes) -> Iterator[tuple[str, type[_Server]]]:
    """Serve a file on this machine."""
    handler = type("Handler", (_Server,), {"content": content, "asked": ()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/model.zip", handler
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def large_zip(tiny: Path, tmp_path: Path) -> bytes:
    """A zip file that comes in several pieces."""
    archive = zipped(tiny, tmp_path / "given.zip")
    with zipfile.ZipFile(archive, "a") as packed:
        packed.writestr("progress.png", bytes(2 << 20))
    return archive.read_bytes()


def test_a_download_that_breaks_off_goes_on_where_it_stood(large_zip: bytes, store: Path) -> None:
    """The next request asks for the rest; nothing but the model remains."""
    with served(large_zip) as (link, server):
        model = install(InstallRequest(name="mine", source=link), store)
        assert server.asked[0] is None
        assert all(server.asked[1:])
        assert len(server.asked) > 1
    assert model.source == link
    assert model.origin == "unverified"
    assert [path.name for path in store.iterdir()] == ["mine"]


def test_a_download_that_came_whole_and_is_no_good_is_fetched_anew(
    large_zip: bytes, store: Path
) -> None:
    """A wrong digest leaves no file behind that the next try would take for the model."""
    with served(large_zip) as (link, _):
        with pytest.raises(ConfigurationError, match="another digest"):
            install(InstallRequest(name="mine", source=link, sha256="0" * 64), store)
        assert not list(store.iterdir())


def test_without_a_way_to_the_link_the_error_says_what_to_do(store: Path) -> None:
    """It names the failure and how to install without a network connection."""
    with pytest.raises(ConfigurationError, match=r"cannot be downloaded .* --from PATH"):
        install(InstallRequest(name="mine", source="http://127.0.0.1:9/model.zip"), store)


def test_names_of_segmenters_that_lead_nowhere_are_refused(store: Path) -> None:
    """Unknown kinds, unknown models and paths are refused, and a missing network too."""
    for name in (
        "magic",
        "nnunet",
        "nnunet:",
        "nnunet:none",
        "nnunet:../x",
        "nnunet:none:twice",
        "network:x",
    ):
        with pytest.raises(ConfigurationError):
            segmenter_named(name, store)
    if models_store.shipped() is None:
        with pytest.raises(ConfigurationError, match="contains no network"):
            segmenter_named("network", store)
    else:
        assert segmenter_named("network", store).origin == "shipped"


def test_what_ships_is_small_whole_and_without_pickles(tmp_path: Path) -> None:
    """A packed model has digest and record; the shipped one has at most 10 MB."""
    made = tiny_plans()
    write_safetensors(
        write_plans(tmp_path / "trained", made) / "fold_0/weights.safetensors", network_of(made)
    )
    (tmp_path / "trained/training.json").write_text('{"epochs": 3}')
    model = models_store.shipped(pack(tmp_path / "trained", tmp_path / "model"))
    assert model is not None
    assert model.origin == "shipped"
    assert [file.name for file in model.verified_files().weights] == ["model.safetensors"]
    in_this_build = models_store.shipped()
    if in_this_build is not None:
        assert in_this_build.verified_files().size <= 10_000_000


def test_a_pickled_checkpoint_does_not_ship(tiny: Path, tmp_path: Path) -> None:
    """Only safetensors are packed."""
    with pytest.raises(ConfigurationError, match="safetensors"):
        pack(tiny, tmp_path / "model")
