"""`raydiff ingest`: archives of each kind become folders; those that are made to do harm do none."""

from __future__ import annotations

import contextlib
import gzip
import http.server
import io
import json
import lzma
import os
import signal
import stat
import subprocess
import sys
import tarfile
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image
from typer.testing import CliRunner

from raydiff import cli, storage
from raydiff.errors import DataError, RaydiffError, StorageError, StorageUnavailable
from raydiff.images import admission, members
from raydiff.images import ingest as ingesting
from raydiff.images.admission import Limits
from raydiff.images.ingest import ingest
from raydiff.images.listing import Listing
from raydiff.images.names import INGESTED
from raydiff.images.pack import pack
from raydiff.images.survey import survey
from raydiff.scoring.archive_run import source_of
from raydiff.storage.source import source

KINDS = {".tar": "w", ".tar.gz": "w:gz", ".tgz": "w:gz", ".tar.xz": "w:xz", ".tar.bz2": "w:bz2", ".zip": ""}
TARS = [kind for kind in KINDS if kind != ".zip"]


def png(seed: int, size: int = 16) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size), np.uint8)).save(sink, "PNG")
    return sink.getvalue()


FILES = {
    **{f"set/bolt/train/good/{number:03d}.png": png(number) for number in range(6)},
    "set/bolt/test/crack/ü 1.png": png(9),
    "set/readme.txt": b"",
}


def packed(folder: Path, kind: str, files: dict[str, bytes] | None = None, name: str = "set") -> str:
    """An archive of some files, its folders too."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}{kind}"
    given = FILES if files is None else files
    if kind == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("set/", b"")
            for each, data in given.items():
                archive.writestr(zipfile.ZipInfo(each), data, zipfile.ZIP_DEFLATED)
        return str(path)
    with tarfile.open(path, KINDS[kind]) as archive:
        above = tarfile.TarInfo("set")
        above.type = tarfile.DIRTYPE
        archive.addfile(above)
        for each, data in given.items():
            member = tarfile.TarInfo(each)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return str(path)


def tar_of(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> str:
    with tarfile.open(path, "w") as archive:
        for member, data in members:
            archive.addfile(member, io.BytesIO(data))
    return str(path)


def member_of(name: str, size: int = 0, **more) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.size = size
    for key, value in more.items():
        setattr(found, key, value)
    return found


def there(out: str) -> dict[str, bytes]:
    """What lies in a folder, by the path below it, but for the mark."""
    if not storage.exists(out):
        return {}
    found = {uri[uri.index(storage.name(out)) + len(storage.name(out)) + 1 :]: uri for uri in storage.list_files(out)}
    return {path: storage.read_bytes(uri) for path, uri in found.items() if path != INGESTED}


def refusal(archive: str, out: Path, limits: Limits | None = None) -> str:
    """The one sentence; nothing lies beside the folder, and nothing reads it as if it were whole."""
    beside = set(os.listdir(out.parent)) | {out.name}
    with pytest.raises(RaydiffError) as error:
        ingest(archive, str(out), limits)
    assert "\n" not in str(error.value)
    assert set(os.listdir(out.parent)) <= beside
    if there(str(out)):
        with pytest.raises(DataError, match="is not whole"):
            survey(str(out))
    return str(error.value)


# What comes out


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_unpacked_and_read(tmp_path, kind):
    archive, out = packed(tmp_path / "a", kind), str(tmp_path / "out")
    found = ingest(archive, out)
    assert there(out) == FILES
    assert (found.files, found.now, found.left_out) == (8, 8, 0)
    assert found.bytes == sum(map(len, FILES.values()))
    read = survey(out)
    assert (len(read.images), read.layout_name, read.ignored) == (7, "mvtec", ("set/readme.txt",))
    listing = Listing(out)
    assert sum(map(len, listing)) == 7
    assert listing.left_out_names == ["set/readme.txt"]


@pytest.mark.parametrize("kind", [".tar.gz", ".zip"])
def test_from_and_into_another_store(tmp_path, kind):
    try:
        uri, out = f"memory://plant/set{kind}", "memory://plant/out"
        storage.write_file(uri, packed(tmp_path, kind))
        assert ingest(uri, out).files == 8
        assert there(out) == FILES
        assert ingest(uri, out).now == 0
    finally:
        MemoryFileSystem.store.clear()
        MemoryFileSystem.pseudo_dirs[:] = [""]


def test_the_content_says_of_which_kind_an_archive_is(tmp_path):
    for kind in (".tar.xz", ".zip", ".tar"):
        path = Path(packed(tmp_path, kind))
        renamed = path.rename(tmp_path / f"fetched{kind.replace('.', '_')}.bin")
        ingest(str(renamed), str(tmp_path / f"out{kind}"))
        assert there(str(tmp_path / f"out{kind}")) == FILES


def test_large_files_are_written_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(ingesting, "SMALL", 100)
    monkeypatch.setattr(ingesting, "PIECE", 64)
    for kind in (".tar.gz", ".zip"):
        ingest(packed(tmp_path, kind), str(tmp_path / f"out{kind}"))
        assert there(str(tmp_path / f"out{kind}")) == FILES


def test_links_and_devices_and_names_that_are_no_text_are_left_out_and_counted(tmp_path):
    archive = tar_of(
        tmp_path / "a.tar",
        (member_of("good/1.png", 3), b"abc"),
        (member_of("good/link.png", type=tarfile.SYMTYPE, linkname="/etc/passwd"), b""),
        (member_of("good/hard.png", type=tarfile.LNKTYPE, linkname="../../x"), b""),
        (member_of("good/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3), b""),
        (member_of("pipe", type=tarfile.FIFOTYPE), b""),
        (member_of(os.fsdecode(b"caf\xe9.png"), 1), b"x"),
        (member_of("good/2.png", 2), b"de"),
    )
    found = ingest(archive, str(tmp_path / "out"))
    assert there(str(tmp_path / "out")) == {"good/1.png": b"abc", "good/2.png": b"de"}
    assert (found.files, found.left_out) == (2, 5)
    assert found.left_out_names == ("good/link.png", "good/hard.png", "good/null", "pipe", "caf\\udce9.png")


def test_a_link_in_a_zip_is_left_out(tmp_path):
    path = tmp_path / "a.zip"
    link = zipfile.ZipInfo("out")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(link, "/etc")
        archive.writestr("out2/1.png", b"abc")
    assert ingest(str(path), str(tmp_path / "out")).left_out == 1
    assert there(str(tmp_path / "out")) == {"out2/1.png": b"abc"}


# Paths


@pytest.mark.parametrize("kind", [".tar", ".zip"])
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../x.png", "leads out of the folder"),
        ("a/../../x.png", "leads out of the folder"),
        ("/tmp/x.png", "is an absolute path"),
        ("C:/x.png", "begins as a Windows drive does"),
        ("c:x.png", "begins as a Windows drive does"),
        ("a\\..\\x.png", "holds a backslash"),
        ("\\\\server\\x.png", "holds a backslash"),
        (INGESTED, "is a name that raydiff needs for itself"),
        ("./at_work.json", "is a name that raydiff needs for itself"),
        ("At_Work.JSON", "is a name that raydiff needs for itself"),
        ("at_work.json/x.png", "is a name that raydiff needs for itself"),
        (f"{INGESTED.upper()}/x.png", "is a name that raydiff needs for itself"),
    ],
)
def test_paths_that_leave_the_folder_are_refused(tmp_path, kind, name, why):
    archive = packed(tmp_path / "a", kind, {name: b"x"})
    out = tmp_path / "b" / "out"
    out.parent.mkdir()
    assert f"holds {name!r}, which {why}" in refusal(archive, out)
    assert there(str(out)) == {}
    # behind others: a zip is looked through before, of a tar what came before is there, and marked
    archive = packed(tmp_path / "c", kind, {"good/1.png": b"y", name: b"x"})
    assert why in refusal(archive, out)
    assert there(str(out)) == ({} if kind == ".zip" else {"good/1.png": b"y"})


def test_a_zero_byte_in_a_zips_name(tmp_path):
    path = Path(packed(tmp_path, ".zip", {"good/1.png?": b"x"}))
    path.write_bytes(path.read_bytes().replace(b"1.png?", b"1.png\0"))
    assert "holds a zero byte" in refusal(str(path), tmp_path / "out")


@pytest.mark.parametrize("kind", [".tar", ".zip"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_files_of_one_name_are_refused(tmp_path, kind):
    if kind == ".zip":
        archive = str(tmp_path / "a.zip")
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("a/1.png", b"x")
            file.writestr("a//1.png", b"y")
    else:
        pair = (member_of("a/1.png", 1), b"x"), (member_of("./a/1.png", 1), b"y")
        archive = tar_of(tmp_path / "a.tar", *pair)
    assert "holds two files called a/1.png" in refusal(archive, tmp_path / "out")


@pytest.mark.parametrize("kind", [".tar", ".zip"])
@pytest.mark.parametrize("names", [("a/b", "a/b/c/1.png"), ("a/b/c/1.png", "a/b"), ("a/b/1.png", "a")])
def test_a_file_that_is_a_folder_too_is_refused(tmp_path, kind, names):
    archive = packed(tmp_path, kind, dict.fromkeys(("a/bc/2.png", *names), b"x"))
    sentence = f"holds a file {min(names, key=len)} and files below it, as if it were a folder, too"
    assert sentence in refusal(archive, tmp_path / "out")


@pytest.mark.parametrize("kind", [".tar", ".zip"])
def test_marks_of_folders_that_were_unpacked_before_are_left_out(tmp_path, kind):
    marks = {f"set/{INGESTED}": b"{}", f"set/bolt/{INGESTED.upper()}": b"x", f"set/{INGESTED}/1.png": b"x"}
    out = str(tmp_path / "out")
    found = ingest(packed(tmp_path, kind, {**FILES, **marks}), out)
    assert (found.files, found.left_out, found.left_out_names) == (len(FILES), 3, tuple(marks))
    assert there(out) == FILES
    survey(f"{out}/set")  # which no mark says to be half unpacked


def test_names_that_differ_in_case_are_two_where_the_disk_tells_them_apart(tmp_path, monkeypatch):
    archive = packed(tmp_path, ".tar", {"a/1.png": b"x", "a/1.PNG": b"y", "A/1.png": b"z"})
    out = tmp_path / "out"
    ingest(archive, str(out))
    assert there(str(out)) == {"a/1.png": b"x", "a/1.PNG": b"y", "A/1.png": b"z"}

    whole = storage.exists
    folded = lambda uri: whole(uri) or whole(uri.replace(".PNG", ".png"))  # noqa: E731
    monkeypatch.setattr(storage, "exists", folded)  # as a disk says it that does not
    assert "takes for one, a/1.PNG and another that differs in upper and lower case" in refusal(archive, tmp_path / "2")


# Web servers


@pytest.fixture
def web(tmp_path):
    """A server that sends each file of a folder from its beginning only, and does not say how long it is."""

    class Plain(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # the client may have seen enough
                self.wfile.write((tmp_path / self.path.lstrip("/")).read_bytes())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Plain) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("kind", TARS)
def test_an_archive_that_is_sent_once_and_without_its_length(tmp_path, web, kind):
    files = {**FILES, "set/long.bin": np.random.default_rng(3).bytes(3_000_000)}
    packed(tmp_path, kind, files)
    out = str(tmp_path / "out")
    assert ingest(f"{web}/set{kind}", out).files == len(files)
    assert there(out) == files


def test_a_zip_that_is_sent_once_is_to_be_fetched_first(tmp_path, web):
    packed(tmp_path, ".zip")
    sentence = refusal(f"{web}/set.zip", tmp_path / "out")
    assert "a .zip, whose list lies at its end" in sentence
    assert sentence.endswith("fetch it first")


# Bombs


def test_an_xz_that_takes_too_much_memory_is_refused(tmp_path, monkeypatch):
    archive = packed(tmp_path, ".tar.xz")
    monkeypatch.setattr(members, "XZ_BYTES", 2**20)  # the packer's usual 8 MB are more
    assert "Memory usage limit exceeded" in refusal(archive, tmp_path / "out")


@pytest.mark.parametrize("behind", [b"", b"\0" * 8, b"what is no stream"])
def test_an_xz_of_several_streams_is_read_piece_by_piece(tmp_path, behind):
    plain = [
        np.random.default_rng(seed).integers(0, 4, size, np.uint8).tobytes() for seed, size in enumerate((9, 10**6))
    ]
    path = tmp_path / "x.xz"
    first, second = map(lzma.compress, plain)
    path.write_bytes(first + bytes(4) + second + behind)
    with source(str(path)) as file:
        reader = members._Xz(file)
        pieces = list(iter(lambda: reader.read(1000), b""))
    assert max(map(len, pieces)) <= 1000
    assert b"".join(pieces) == lzma.decompress(first + second) == b"".join(plain)


def test_what_unpacks_to_too_much_is_refused(tmp_path):
    for kind in (".tar.gz", ".zip"):
        archive, out = packed(tmp_path, kind), tmp_path / f"out{kind}"
        assert "more than 7 files, as one may that is made to fill a disk" in refusal(archive, out, Limits(files=7))
        assert "--max-file-bytes" in refusal(archive, out, Limits(file_bytes=len(png(0)) - 1))
        total = sum(map(len, FILES.values()))
        assert f"more than {total - 1:,} bytes" in refusal(archive, out, Limits(bytes=total - 1))
        assert ingest(archive, str(out), Limits(total, 8, max(map(len, FILES.values())))).files == 8


@pytest.mark.parametrize("kind", [".tar", ".zip"])
def test_folders_without_end(tmp_path, kind):
    archive = packed(tmp_path, kind, {"/".join(str(number) for number in range(20)) + "/x.png": b"x"})
    assert "unpacks to more than 19 folders" in refusal(archive, tmp_path / "out", Limits(files=19))
    assert ingest(archive, str(tmp_path / "out"), Limits(files=20)).files == 1
    deep = packed(tmp_path, kind, {"d/" * 30_000 + "x.png": b"x"}, "deep")
    assert "which is longer than the 4,096 bytes that a disk takes" in refusal(deep, tmp_path / "deep-out")


@pytest.mark.parametrize("kind", [".tar.gz", ".tar.bz2", ".tar.xz", ".zip"])
def test_a_bomb_of_zeros(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(admission, "WITHOUT_RATIO", 10**6)
    archive = packed(tmp_path / "a", kind, {"good/1.png": bytes(20 * 10**6)})
    out = tmp_path / "out"
    assert "--max-ratio" in refusal(archive, out)
    assert there(str(out)) == {}
    assert ingest(archive, str(out), Limits(ratio=10**6)).bytes == 20 * 10**6


def test_a_few_black_masks_are_no_bomb(tmp_path):
    archive = packed(tmp_path, ".zip", {f"{number}_mask.bmp": bytes(10**5) for number in range(5)})
    assert Path(archive).stat().st_size * 100 < 5 * 10**5
    assert ingest(archive, str(tmp_path / "out")).files == 5


def test_a_zip_that_claims_less_than_it_holds(tmp_path):
    path = Path(packed(tmp_path, ".zip", {"1.png": bytes(10**5)}))
    path.write_bytes(path.read_bytes().replace((10**5).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    assert "cannot be unpacked (Bad CRC-32" in refusal(str(path), tmp_path / "out")
    assert there(str(tmp_path / "out")) == {}


def test_a_header_without_end(tmp_path):
    sink = io.BytesIO()
    header = member_of("./PaxHeaders/x", 50 * 10**6, type=tarfile.XHDTYPE)
    sink.write(header.tobuf(tarfile.USTAR_FORMAT))
    sink.write(bytes(50 * 10**6))
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(sink.getvalue(), 1))
    assert "that are no file's" in refusal(str(path), tmp_path / "out")


def test_zeros_behind_the_end_of_an_archive_are_not_read_for_ever(tmp_path):
    whole = gzip.decompress(Path(packed(tmp_path, ".tar.gz")).read_bytes())
    path = tmp_path / "b.tar.gz"
    path.write_bytes(gzip.compress(whole + bytes(30 * 10**6), 1))
    assert "behind the last one, that are no file's" in refusal(str(path), tmp_path / "out")


def test_a_zips_list_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(members, "LISTED_BYTES", 70_000)  # zipfile looks through the last 65 kB for the list's end
    archive = packed(tmp_path, ".zip", {f"{'x' * 200}{number}.png": b"" for number in range(400)})
    assert "has a list of files of" in refusal(archive, tmp_path / "out")


# Damage


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_archive(tmp_path, kind):
    path = Path(packed(tmp_path, kind, {f"{number}.png": png(number, 64) for number in range(8)}))
    data = path.read_bytes()
    for share in (0.4, 0.75):  # the rest of a tar may be zeros that fill it up
        path.write_bytes(data[: int(len(data) * share)])
        assert "is cut: it ends" in refusal(str(path), tmp_path / f"out{share}")


def test_a_tar_that_is_cut_between_two_members(tmp_path):
    path = Path(packed(tmp_path, ".tar", {"1.png": b"x", "2.png": b"y"}))
    path.write_bytes(path.read_bytes()[: 3 * 1024 - 512])  # a folder of one block, two files of two
    assert "is cut: it ends without an end mark" in refusal(str(path), tmp_path / "out")


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path):
    path = Path(packed(tmp_path, ".tar", {"1.png": b"x", "2.png": b"y"}))
    data = bytearray(path.read_bytes())
    data[3 * 512 + 10] ^= 255
    path.write_bytes(data)
    assert "is damaged at byte 1,536" in refusal(str(path), tmp_path / "out")


def test_two_archives_put_together(tmp_path):
    path = Path(packed(tmp_path, ".tar"))
    path.write_bytes(path.read_bytes() * 2)
    assert "holds more behind its end" in refusal(str(path), tmp_path / "out")


@pytest.mark.parametrize("kind", [".tar.gz", ".tar.xz", ".zip"])
def test_damage_in_the_middle(tmp_path, kind):
    path = Path(packed(tmp_path, kind, {f"{number}.png": png(number, 64) for number in range(8)}))
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 8] = b"\x55" * 8
    path.write_bytes(data)
    assert f"{path} " in refusal(str(path), tmp_path / "out")


def test_an_encrypted_zip(tmp_path):
    path = Path(packed(tmp_path, ".zip", {"1.png": b"x", "2.png": b"y"}))
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02")  # the second file's entry in the list
    data[at + 8] |= 1
    path.write_bytes(data)
    assert "is encrypted (2.png); unpack it with its password" in refusal(str(path), tmp_path / "out")
    assert there(str(tmp_path / "out")) == {}


def test_a_zip_of_a_method_that_is_not_read(tmp_path):
    path = Path(packed(tmp_path, ".zip", {"1.png": b"x"}))
    data = bytearray(path.read_bytes())
    data[data.rindex(b"PK\x01\x02") + 10] = 9  # Deflate64
    path.write_bytes(data)
    assert "method 9 of 1.png" in refusal(str(path), tmp_path / "out")


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "it is empty"),
        (b"buy milk", "is no archive that is read: known are .tar, .tar.gz"),
        (b"7z\xbc\xaf\x27\x1c....", "it is a 7-Zip archive"),
        (b"Rar!\x1a\x07", "it is a RAR archive"),
        (gzip.compress(b"buy milk" * 100), "cannot be unpacked"),
    ],
    ids=["empty", "text", "7z", "rar", "gzip of text"],  # gzip writes the time: workers must name tests alike
)
def test_what_is_no_archive(tmp_path, data, sentence):
    (tmp_path / "a.bin").write_bytes(data)
    assert sentence in refusal(str(tmp_path / "a.bin"), tmp_path / "out")
    assert not (tmp_path / "out" / INGESTED).exists()


def test_what_is_not_there_a_folder_or_empty(tmp_path):
    assert "is not there" in refusal(str(tmp_path / "a.zip"), tmp_path / "out")
    (tmp_path / "folder").mkdir()
    assert "is a folder; give it to `raydiff index --data`" in refusal(str(tmp_path / "folder"), tmp_path / "out")
    for kind in (".tar", ".zip"):
        assert "holds no files" in refusal(packed(tmp_path, kind, {}), tmp_path / "out")


def test_a_store_that_fails_while_an_archive_is_read_is_not_taken_for_damage(tmp_path, monkeypatch):
    archive = packed(tmp_path, ".tar.gz", {f"{number}.png": png(number, 64) for number in range(40)})

    def failing(self, count=-1):
        raise StorageUnavailable(f"{archive}: no answer")

    monkeypatch.setattr("raydiff.storage.source.Source.read", failing)
    with pytest.raises(StorageUnavailable, match="no answer"):
        ingest(archive, str(tmp_path / "out"))


# Where to


def test_a_folder_that_holds_something_else_is_left_as_it_is(tmp_path):
    archive, out = packed(tmp_path / "a", ".zip"), tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("x")
    assert "holds something else (mine.txt); unpack into a new or an empty folder" in refusal_kept(archive, out)
    assert os.listdir(out) == ["mine.txt"]
    assert "is a file; choose a new folder" in refusal_kept(archive, out / "mine.txt")


def test_an_archive_that_is_unpacked_already(tmp_path):
    archive, out = packed(tmp_path / "a", ".tar"), tmp_path / "out"
    first = ingest(archive, str(out))
    assert ingest(archive, str(out)) == first._replace(now=0)
    other = packed(tmp_path / "a", ".tar", {"1.png": b"x"}, name="other")
    assert f"holds {archive}, unpacked; choose another --out" in refusal_kept(other, out)
    packed(tmp_path / "a", ".tar", {"1.png": b"x"})
    assert "as it was before it changed, unpacked" in refusal_kept(archive, out)
    assert there(str(out)) == FILES


def refusal_kept(archive: str, out: Path) -> str:
    with pytest.raises(DataError) as error:
        ingest(archive, str(out))
    return str(error.value)


KILLED = """
import os, signal, sys
from raydiff.images.ingest import ingest

replace, count = os.replace, 0

def replaced(*paths):
    global count
    count += 1
    if count == 5:
        os.kill(os.getpid(), signal.SIGKILL)  # before the file has its name
    replace(*paths)

os.replace = replaced
ingest(*sys.argv[1:])
"""


@pytest.mark.parametrize("kind", [".tar.gz", ".zip"])
def test_a_killed_run_is_told_and_gone_on_with(tmp_path, kind):
    archive, out = packed(tmp_path / "a", kind), str(tmp_path / "out")
    done = subprocess.run([sys.executable, "-c", KILLED, archive, out], capture_output=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL
    left = there(out)
    assert any(path.endswith(".partial") for path in left)
    whole = {path for path in left if path in FILES}
    assert 0 < len(whole) < len(FILES)
    again = (
        f"{out} is not whole: {archive} is not unpacked to its end; run `raydiff ingest {archive} --out {out}` again"
    )
    run = str(tmp_path / "run")
    for data, looks in {
        out: [
            survey,
            lambda data: list(Listing(data)),
            lambda data: source_of(data, None),
            lambda data: pack(data, run),
        ],
        f"{out}/set": [survey, lambda data: source_of(data, None), lambda data: pack(data, run)],
        f"{out}/set/bolt": [survey],
    }.items():
        for look in looks:
            with pytest.raises(DataError) as error:
                look(data)
            assert again in str(error.value)
    assert not os.path.exists(run)
    found = ingest(archive, out)
    assert there(out) == FILES
    assert (found.files, found.now) == (8, 8 - len(whole))
    assert found.bytes == sum(map(len, FILES.values()))
    assert len(survey(f"{out}/set").images) == 7


def test_a_store_that_fails_in_the_middle_keeps_what_is_there(tmp_path, monkeypatch):
    archive, out = packed(tmp_path / "a", ".tar.xz"), str(tmp_path / "out")
    write = storage.write_bytes
    full = "set/bolt/test/crack/ü 1.png"

    def failing(uri, data):
        if uri.endswith(full):
            raise StorageError(f"{uri}: No space left on device")
        write(uri, data)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_bytes", failing)
        assert "No space left" in refusal(archive, Path(out))
    other = packed(tmp_path / "a", ".tar.xz", {"1.png": b"x"}, name="other")
    assert f"holds {archive}, half unpacked" in refusal(other, Path(out))
    assert ingest(archive, out).files == 8
    assert there(out) == FILES


def test_a_score_folder_is_looked_at_too(tmp_path):
    for number in range(2):
        storage.write_bytes(str(tmp_path / f"bolts/{number}.png"), png(number))
        storage.write_bytes(str(tmp_path / f"new/{number}.png"), png(10 + number))
    mark = {"archive": "a.zip", "finished": False}
    storage.write_json(str(tmp_path / "new" / INGESTED), mark)
    with pytest.raises(DataError, match=r"new is not whole: a\.zip is not unpacked"):
        survey(str(tmp_path / "bolts"), str(tmp_path / "new"))
    storage.write_json(str(tmp_path / "new" / INGESTED), {**mark, "finished": True})
    assert len(survey(str(tmp_path / "bolts"), str(tmp_path / "new")).images) == 4


@pytest.mark.s3
@pytest.mark.parametrize("kind", [".tar.gz", ".zip"])
def test_between_buckets(s3_bucket, tmp_path, monkeypatch, kind):
    uri, out = f"{s3_bucket}/fetched/set{kind}", f"{s3_bucket}/out"
    storage.write_file(uri, packed(tmp_path, kind))
    write, written = storage.write_bytes, []

    def failing(where, data):
        if len(written) > 3 and where.endswith(".png"):
            raise StorageError(f"{where}: refused")
        written.append(where)
        write(where, data)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_bytes", failing)
        patch.setattr(ingesting, "SMALL", 600)
        with pytest.raises(StorageError, match="refused"):
            ingest(uri, out)
    for data in (out, f"{out}/set"):
        with pytest.raises(DataError, match="is not whole"):
            survey(data)
    found = ingest(uri, out)
    assert 0 < found.now < found.files == 8
    assert there(out) == FILES
    assert survey(out).layout_name == "mvtec"
    assert ingest(uri, out).now == 0


# The command


def test_the_command_prints_what_was_unpacked_and_what_is_next(tmp_path):
    archive, out = packed(tmp_path, ".zip"), tmp_path / "out"
    given = ["ingest", archive, "--out", str(out)]
    refused = CliRunner().invoke(cli.app, [*given, "--max-files", "2"])
    assert "say so with --max-files" in str(refused.exception)
    result = CliRunner().invoke(cli.app, given)
    assert result.exit_code == 0, result.output
    assert "unpacking: begins, 1 MB" in result.output
    assert f"unpacked: 8 files (0.0 MB) in {out}, 8 of them now" in result.output
    assert f"index --data {out} --out RUN" in result.output
    told = CliRunner().invoke(cli.app, [*given, "--json"])
    assert json.loads(told.stdout) == {
        "archive": archive,
        "data": str(out),
        "files": 8,
        "bytes": sum(map(len, FILES.values())),
        "now": 0,
        "left_out": 0,
        "left_out_names": [],
    }
    settings = tmp_path / "ingest.yaml"
    settings.write_text(f"archive: {archive}\nout: {out}\nmax-ratio: 50\n")
    shown = CliRunner().invoke(cli.app, ["ingest", "--settings", str(settings), "--print-config"])
    assert "max-ratio: 50.0" in shown.output, shown.output
