"""Manifests: what is taken, and a clear line for everything else."""

import pytest

from mmaudio.data.manifest import ManifestError, read_manifest


def write(folder, content):
    path = folder / "clips.tsv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_columns_in_any_order_and_others_ignored(tmp_path):
    path = write(
        tmp_path, "start\tid\tsplit\tcaption\tpath\n1.5\ta\ttrain\ta dog, barking\tx/a.mp4\n\tb\t\t\t/m/b.mp4\n"
    )
    a, b = read_manifest(path)
    assert (a.id, a.path, a.caption, a.start) == ("a", tmp_path / "x/a.mp4", "a dog, barking", 1.5)
    assert (b.id, str(b.path), b.caption, b.start) == ("b", "/m/b.mp4", None, 0.0)


def test_only_id_and_path_are_needed(tmp_path):
    [row] = read_manifest(write(tmp_path, "id\tpath\na\ta.wav\n"))
    assert (row.caption, row.start) == (None, 0.0)


@pytest.mark.parametrize(
    "content",
    [
        b'\xef\xbb\xbfid\tpath\tcaption\r\na\ta.mp4\tfour \xe2\x80\x9cquoted\xe2\x80\x9d "words"\r\n\r\n',  # BOM, CRLF
        'id\tpath\tcaption\na\ta.mp4\tfour “quoted” "words"'.encode(),  # no line break at the end
    ],
)
def test_what_editors_and_spreadsheets_write(tmp_path, content):
    [row] = read_manifest(write(tmp_path, content))
    assert row.path == tmp_path / "a.mp4"
    assert row.caption == 'four “quoted” "words"'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "must name the columns id and path"),
        ("id\tpath\n", "lists no clips"),
        ("id,path\na,a.mp4\n", "tab-separated"),
        ("a\ta.mp4\nb\tb.mp4\n", "must name the columns"),
        ("ID\tPath\na\ta.mp4\n", r"got \['ID', 'Path'\]"),
        ("id\tpath\tid\na\ta.mp4\tb\n", "each once"),
        ("id\tpath\tcaption\tcaption\na\ta.mp4\tx\ty\n", "each once"),
        ("id\tpath\tcaption\na\ta.mp4\tfine\nb\tb.m", "line 3: has 2 fields, the header has 3"),  # truncated
        ("id\tpath\n\ta.mp4\n", "line 2: id and path must not be empty"),
        ("id\tpath\na\t \n", "line 2: id and path must not be empty"),
        ("id\tpath\na\ta.mp4\na\tb.mp4\n", "line 3: id 'a' was on line 2 already"),
        ("id\tpath\n../a\ta.mp4\n", "cannot be part of a file name"),
        ("id\tpath\n..\ta.mp4\n", "cannot be part of a file name"),
        ("id\tpath\nc:\\a\ta.mp4\n", "cannot be part of a file name"),
        ("id\tpath\na\x1b[31m\ta.mp4\n", "cannot be part of a file name"),
        ("id\tpath\na\u2028b\ta.mp4\n", "cannot be part of a file name"),
        ("id\tpath\n" + "ä" * 101 + "\ta.mp4\n", "longer than 200 bytes"),
        ("id\tpath\tstart\na\ta.mp4\tsoon\n", "start must be seconds, zero or more, got 'soon'"),
        ("id\tpath\tstart\na\ta.mp4\t-1\n", "start must be seconds"),
        ("id\tpath\tstart\na\ta.mp4\tnan\n", "start must be seconds"),
        (b"id\tpath\n\xff\xfea\ta.mp4\n", "no UTF-8"),
        ("id\tpath\na\ta.mp4\n".encode("utf-16"), "no UTF-8"),
        (b"\x00\x00\x00\x20ftypisom" + bytes(range(256)), "no UTF-8"),
        ("id\tpath\na\t" + "x" * 200_000 + "\n", "no UTF-8 text table"),
    ],
)
def test_bad_manifests_are_one_clear_line(tmp_path, content, message):
    path = write(tmp_path, content)
    with pytest.raises(ManifestError, match=message) as error:
        read_manifest(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_a_missing_file_and_a_folder(tmp_path):
    for path in (tmp_path / "none.tsv", tmp_path):
        with pytest.raises(ManifestError, match="cannot read"):
            read_manifest(path)
