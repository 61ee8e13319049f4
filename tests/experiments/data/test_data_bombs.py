"""Files that claim or would unfold to more than there is: refused at once, in little memory."""

from __future__ import annotations

import gzip
import io
import lzma
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from dlvm.experiments.data import from_file

LITTLE = 64 << 20


def header(shape: tuple[int, ...], dtype: str = "<f8", version: tuple[int, int] = (1, 0)) -> bytes:
    out = io.BytesIO()
    write = np.lib.format.write_array_header_1_0 if version == (1, 0) else np.lib.format.write_array_header_2_0
    write(out, {"descr": dtype, "fortran_order": False, "shape": shape})
    return out.getvalue()


def refused(path: Path, match: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=match):
            from_file(path)
        assert tracemalloc.get_traced_memory()[1] < LITTLE
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("shape", [(10**12, 784), (2**40,), (2**62, 2**62), (3, 5)])
@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_a_header_that_claims_more_than_follows(tmp_path, shape, version):
    content = header(shape, version=version) + bytes(80)
    (tmp_path / "x.npy").write_bytes(content)
    refused(tmp_path / "x.npy", r"x\.npy claims shape .* and 80 follow")
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", content)
    refused(tmp_path / "x.npz", r"x\.npy claims shape .* and 80 follow")


@pytest.mark.slow
def test_an_archive_of_zeros_without_end(tmp_path):
    rows = 300_000
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("x.npy", "w", force_zip64=True) as part:
            part.write(header((rows, 1024), "|u1"))
            for _ in range(rows // 1000):
                part.write(bytes(1024 * 1000))
    assert (tmp_path / "x.npz").stat().st_size < 1 << 20
    refused(tmp_path / "x.npz", "bytes would unfold to 307200")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_stream_of_every_method(tmp_path, method):
    with zipfile.ZipFile(tmp_path / "x.npz", "w", method) as archive:
        archive.writestr("x.npy", header((500, 2)) + np.random.default_rng(0).bytes(8000))
    content = bytearray((tmp_path / "x.npz").read_bytes())
    content[2000:2100] = bytes(100)
    (tmp_path / "x.npz").write_bytes(content)
    refused(tmp_path / "x.npz", "is no readable file of plain numpy arrays")


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_what_is_packed_otherwise_is_not_unpacked(tmp_path, pack):
    (tmp_path / "x.npy").write_bytes(pack(bytes(1 << 20)))
    refused(tmp_path / "x.npy", "is no readable file of plain numpy arrays")


@pytest.mark.parametrize("text", ["1,2\n" + "3" * 2_000_000, "1,2\n3\x00,4", '"1,2\n3,4"', "1,2\n3,4;5", "1;2\n3;x4"])
def test_csv_lines_of_another_kind_are_located(tmp_path, text):
    (tmp_path / "x.csv").write_text(text)
    refused(tmp_path / "x.csv", r"x\.csv.*(line \d|no line of numbers)")
