"""Reading properties from disk."""

from __future__ import annotations

import gc
import gzip
from fractions import Fraction
from pathlib import Path

import pytest

import verifier
from verifier.errors import PropertyError
from verifier.frontend.vnnlib import parse_property, read_property

PROPERTIES = Path(__file__).parents[2] / "vnnlib"
TEXT = """; a
(declare-const X_0 Real)
(declare-const Y_0 Real)
(assert (and (>= X_0 0) (<= X_0 {})))
(assert (<= Y_0 0))"""


def test_acasxu_property_2() -> None:
    query = read_property(PROPERTIES / "acasxu_prop_2.vnnlib")
    (disjunct,) = query.disjuncts
    assert (query.input_size, query.output_size, query.warnings) == (5, 5, ())
    assert disjunct.box.lower == tuple(map(Fraction, ("0.6", "-0.5", "-0.5", "0.45", "-0.5")))
    assert disjunct.box.upper == tuple(map(Fraction, ("0.679857769", "0.5", "0.5", "0.5", "-0.45")))
    assert [row.outputs for row in disjunct.rows] == [((0, -1), (k, 1)) for k in range(1, 5)]
    assert [row.bound for row in disjunct.rows] == [0] * 4


def test_gzipped_files_and_line_ends(tmp_path: Path) -> None:
    content = TEXT.format(3).replace("\n", "\r\n").encode()
    (tmp_path / "a.vnnlib.gz").write_bytes(gzip.compress(content))
    (tmp_path / "renamed.vnnlib").write_bytes(gzip.compress(content))
    (tmp_path / "marked.vnnlib").write_bytes(b"\xef\xbb\xbf" + content)
    for name in ("a.vnnlib.gz", "a.vnnlib", "renamed.vnnlib", "marked.vnnlib"):
        assert read_property(str(tmp_path / name)).disjuncts[0].box.upper == (3,)


def test_the_exact_path_wins_over_the_gzipped_one(tmp_path: Path) -> None:
    (tmp_path / "a.vnnlib").write_text(TEXT.format(1))
    (tmp_path / "a.vnnlib.gz").write_bytes(gzip.compress(TEXT.format(2).encode()))
    assert read_property(tmp_path / "a.vnnlib").disjuncts[0].box.upper == (1,)


def test_a_changed_file_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.vnnlib"
    for upper in (1, 2):
        path.write_text(TEXT.format(upper))
        assert read_property(path).disjuncts[0].box.upper == (upper,)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.vnnlib"]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "binary.vnnlib").write_bytes(b"(declare-const X_0 Real) \xff\xfe")
    (tmp_path / "cut.vnnlib.gz").write_bytes(gzip.compress(TEXT.encode())[:-9])
    (tmp_path / "folder.vnnlib").mkdir()
    for name, message in [
        ("none.vnnlib", "does not exist"),
        ("folder.vnnlib", "is a directory"),
        ("binary.vnnlib", "byte 25 is not valid UTF-8"),
        ("cut.vnnlib", "not a complete gzip file"),
    ]:
        with pytest.raises(PropertyError, match=f"{name}.*{message}"):
            read_property(tmp_path / name)


def test_faults_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "bad.vnnlib"
    path.write_text(TEXT.format("X_1"))
    with pytest.raises(PropertyError) as caught:
        verifier.read_property(str(path))
    assert str(caught.value).startswith(f"{path}, line 4, column 33: variable 'X_1'")
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("body", ["", "(assert (<= Y_0"])
def test_the_garbage_collector_runs_again_afterwards(body: str) -> None:
    try:
        parse_property(TEXT.format(1) + body, "file")
    except PropertyError:
        assert body
    assert gc.isenabled()
