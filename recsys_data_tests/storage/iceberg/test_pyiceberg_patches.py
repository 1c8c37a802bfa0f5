"""What is patched in PyIceberg still does what it is patched for, and another version is named."""

import copy
import importlib.metadata
import logging

import pytest
from pyiceberg.manifest import ManifestFile

from recsys_data.storage.iceberg import pyiceberg_patches
from recsys_data.storage.iceberg.manifest_stats import read_manifests
from recsys_data.storage.iceberg.pyiceberg_patches import remembered_manifests
from recsys_data_tests.storage.conftest import OpenLake
from recsys_data_tests.support.rows import append, rows


def test_the_installed_version_is_one_that_was_tried(caplog: pytest.LogCaptureFixture) -> None:
    pyiceberg_patches._check_version.cache_clear()
    pyiceberg_patches._check_version()
    assert caplog.records == []


def test_another_version_is_named_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "9.1.2")
    pyiceberg_patches._check_version.cache_clear()
    with caplog.at_level(logging.WARNING):
        pyiceberg_patches._check_version()
        pyiceberg_patches._check_version()
    pyiceberg_patches._check_version.cache_clear()
    (record,) = caplog.records
    assert "PyIceberg 9.1.2 is installed; its internals were tried with 0.12.x only" in record.getMessage()


def test_copies_of_metadata_share_what_never_changes(open_notes: OpenLake) -> None:
    table = open_notes().table("notes")
    append(table, rows(("a", 0)), 1)
    copied = copy.deepcopy(table.metadata)
    assert copied.snapshots[0] is table.metadata.snapshots[0]
    assert copied.schemas[0] is table.metadata.schemas[0]
    assert copied.properties is not table.metadata.properties


def test_a_manifest_is_read_once_while_remembered(open_notes: OpenLake, monkeypatch: pytest.MonkeyPatch) -> None:
    table = open_notes().table("notes")
    append(table, rows(("a", 0)), 1)
    fetch, read = ManifestFile.fetch_manifest_entry, []

    def counted(manifest: ManifestFile, *args: object, **kwargs: object) -> object:
        read.append(manifest.manifest_path)
        return fetch(manifest, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(ManifestFile, "fetch_manifest_entry", counted)
    with remembered_manifests():
        read_manifests(table)
        read_manifests(table)
    assert len(read) == 1
    read_manifests(table)
    assert len(read) == 2
