"""The image files: checksums, the public splits, downloads, and what is said where there is no network."""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import urllib.error
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest
import torch

from dlvm.experiments.data import _torchvision, binarized_mnist, fashion_mnist, files, larochelle, load, mnist

HAVE = {
    name: any((folder / file).is_file() for folder in files.FOLDERS)
    for name, file in {
        "mnist": "MNIST/raw/train-images-idx3-ubyte",
        "fashion_mnist": "FashionMNIST/raw/train-images-idx3-ubyte",
        "binarized_mnist": larochelle.FILE,
    }.items()
}


def needs(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not HAVE[name], reason=f"{name} is in neither data/ nor ../shared/data")


def unreachable(*_, **__):
    raise urllib.error.URLError("no route to host")


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    monkeypatch.setattr(_torchvision, "download", unreachable)


def idx(x: np.ndarray) -> bytes:
    return bytes([0, 0, 8, x.ndim]) + np.array(x.shape, ">u4").tobytes() + x.tobytes()


@pytest.fixture
def small_mnist(tmp_path, monkeypatch):
    """A folder with four idx files of the right names, 60 + 10 images, and their checksums in the table."""
    rng, digests = np.random.default_rng(0), {}
    for file in files.SHA256["MNIST"]:
        n = 60_000 if file.startswith("train") else 10_000
        x = rng.integers(0, 256, (n, 2, 2) if "images" in file else (n,), dtype=np.uint8)
        path = tmp_path / "MNIST" / "raw" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(idx(x))
        digests[file] = hashlib.sha256(idx(x)).hexdigest()
    monkeypatch.setitem(files.SHA256, "MNIST", digests)
    return tmp_path


def test_idx_files_are_read_as_written(tmp_path):
    x = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    (tmp_path / "x").write_bytes(idx(x))
    assert np.array_equal(files.read_idx(tmp_path / "x", hashlib.sha256(idx(x)).hexdigest()), x)


def test_a_changed_byte_fails_the_checksum(tmp_path):
    content = bytearray(idx(np.arange(24, dtype=np.uint8)))
    expected = hashlib.sha256(content).hexdigest()
    content[-1] ^= 1
    (tmp_path / "train-images").write_bytes(content)
    got = hashlib.sha256(content).hexdigest()
    with pytest.raises(ValueError, match=f"train-images: sha256 expected {expected}, got {got}"):
        files.read_idx(tmp_path / "train-images", expected)


def test_a_damaged_file_stops_mnist(tmp_path, offline):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for file in files.SHA256["MNIST"]:
        (raw / file).write_bytes(b"\0\0\x08\x01\0\0\0\0")
    with pytest.raises(ValueError, match="train-images-idx3-ubyte: sha256 expected ba891046.*remove it"):
        mnist(data_dir=tmp_path)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "binarized_mnist"])
def test_without_files_and_network_the_error_names_folder_files_and_remedy(name, tmp_path, offline):
    file = larochelle.FILE if name == "binarized_mnist" else "MNIST/raw/t10k-labels-idx1-ubyte"
    message = rf"no data in {re.escape(str(tmp_path))}.*no route to host.*{file}.*--data-dir"
    with pytest.raises(FileNotFoundError, match=message):
        load(name, data_dir=tmp_path)


def test_data_folder_comes_before_the_shared_one(tmp_path, monkeypatch, offline):
    own, shared = tmp_path / "data", tmp_path / "shared"
    monkeypatch.setattr(files, "FOLDERS", (own, shared))
    shared.mkdir()
    (shared / "a").touch()
    assert files.folder_with(["a"], None, unreachable) == shared
    own.mkdir()
    (own / "a").touch()
    assert files.folder_with(["a"], None, unreachable) == own
    fetched = []
    assert files.folder_with(["b"], None, fetched.append) == own and fetched == [own]


def test_mnist_split_is_the_first_50000_the_last_10000_and_the_test_file(small_mnist, offline):
    train, valid, test = mnist(binarize=None, data_dir=small_mnist)
    raw = {f: files.read_idx(small_mnist / "MNIST/raw" / f, h) for f, h in files.SHA256["MNIST"].items()}
    x = torch.cat([train.x, valid.x]).mul(255).round().to(torch.uint8).reshape(-1, 2, 2)
    assert [train.num_data, valid.num_data, test.num_data] == [50_000, 10_000, 10_000]
    assert np.array_equal(x.numpy(), raw["train-images-idx3-ubyte"])
    assert np.array_equal(torch.cat([train.labels, valid.labels]).numpy(), raw["train-labels-idx1-ubyte"])
    assert np.array_equal(test.labels.numpy(), raw["t10k-labels-idx1-ubyte"])


def test_binarized_mnist_refuses_to_be_binarised_again(offline):
    with pytest.raises(ValueError, match="must be None or 'static' for binarized_mnist, got 'dynamic'"):
        binarized_mnist(binarize="dynamic")


def test_public_text_and_back():
    x = np.random.default_rng(0).integers(0, 2, (3, 5), dtype=np.uint8)
    text = larochelle.to_text(x).tobytes()
    assert text.decode() == "".join(" ".join(map(str, row)) + "\n" for row in x)
    assert np.array_equal(larochelle.from_text(text, 5), x)


@pytest.fixture
def small_text(monkeypatch):
    """Three public text files of 4 images in place of the network's, with their md5 in the table."""
    x = np.random.default_rng(0).integers(0, 2, (4, 784), dtype=np.uint8)
    text = larochelle.to_text(x).tobytes()
    monkeypatch.setattr(larochelle, "MD5", dict.fromkeys(larochelle.MD5, hashlib.md5(text).hexdigest()))
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: io.BytesIO(text))
    return x


def test_a_download_is_kept_and_read_back(tmp_path, small_text, monkeypatch):
    first = binarized_mnist(data_dir=tmp_path)
    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    for splits in (first, binarized_mnist(data_dir=tmp_path)):
        assert all(np.array_equal(s.x.numpy(), small_text) and s.labels is None for s in splits)


def test_a_download_of_something_else_is_refused_and_not_kept(tmp_path, small_text, monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: io.BytesIO(b"<html>moved</html>"))
    with pytest.raises(ValueError, match="binarized_mnist_train.amat: md5 expected .* got "):
        binarized_mnist(data_dir=tmp_path)
    assert not (tmp_path / larochelle.FILE).exists()


def test_other_pixels_or_arrays_under_the_right_name_are_refused(tmp_path):
    path = tmp_path / larochelle.FILE
    path.parent.mkdir()
    np.savez(path, train_bits=np.zeros((2, 98), np.uint8))
    with pytest.raises(ValueError, match=r"binarized_mnist.npz \(train\): md5 expected db28b1a6"):
        binarized_mnist(data_dir=tmp_path)
    np.savez(path, images=np.zeros((2, 98), np.uint8))
    with pytest.raises(ValueError, match=r"must hold train_bits, got \['images'\]"):
        binarized_mnist(data_dir=tmp_path)


@pytest.fixture
def served(tmp_path, monkeypatch):
    """The address and the folder of a web server on this machine."""
    folder = tmp_path / "served"
    folder.mkdir()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=folder))
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", folder
    server.shutdown()
    server.server_close()
    thread.join()


def test_torchvision_imports_beside_this_torch_and_downloads_where_we_look(tmp_path, served, monkeypatch):
    datasets = _torchvision.datasets()
    assert _torchvision.datasets() is datasets  # a second time declares nothing twice
    address, folder = served
    archives = {}
    for file in files.SHA256["MNIST"]:
        n = 3 if file.startswith("train") else 2
        x = np.full((n, 2, 2) if "images" in file else (n,), n, dtype=np.uint8)
        archives[f"{file}.gz"] = gzip.compress(idx(x))
        (folder / f"{file}.gz").write_bytes(archives[f"{file}.gz"])
    resources = [(name, hashlib.md5(content).hexdigest()) for name, content in archives.items()]
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    monkeypatch.setattr(datasets.MNIST, "mirrors", [address])
    _torchvision.download("MNIST", tmp_path / "data")
    for file in files.SHA256["MNIST"]:
        content = (tmp_path / "data" / "MNIST" / "raw" / file).read_bytes()
        assert content == gzip.decompress(archives[f"{file}.gz"])


# --- the real files, where they are


@pytest.mark.slow
@needs("mnist")
def test_mnist_is_what_torchvision_reads():
    folder = next(f for f in files.FOLDERS if (f / "MNIST/raw/train-images-idx3-ubyte").is_file())
    test = mnist(binarize=None).test
    theirs = _torchvision.datasets().MNIST(folder, train=False, download=False)
    assert torch.equal(test.x, theirs.data.flatten(1) / 255) and torch.equal(test.labels, theirs.targets)


@needs("fashion_mnist")
def test_fashion_mnist_has_each_of_ten_classes_a_thousand_times_in_its_test_part():
    train, valid, test = fashion_mnist(binarize=None)
    assert [s.num_data for s in (train, valid, test)] == [50_000, 10_000, 10_000]
    assert test.labels.bincount().tolist() == [1000] * 10
    assert not train.x.min() and train.x.max() == 1


@pytest.mark.slow
@needs("binarized_mnist")
@needs("mnist")
def test_the_fixed_binarisation_has_the_mean_of_the_greys():
    splits, grey = binarized_mnist(binarize="static"), mnist(binarize=None)
    assert [s.num_data for s in splits] == [50_000, 10_000, 10_000]
    assert set(splits.test.x.unique().tolist()) == {0.0, 1.0}
    standard_error = (grey.test.x * (1 - grey.test.x)).sum().sqrt() / grey.test.x.numel()
    assert (splits.test.x.mean() - grey.test.x.mean()).abs() < 4 * standard_error
