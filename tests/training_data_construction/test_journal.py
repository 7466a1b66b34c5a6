"""A journal loses no appended line and keeps no incomplete one."""

import json
import os

import pytest

from training_data_construction.journal import Journal, JournalError


def filled(path, count=3):
    with Journal(path) as journal:
        for number in range(count):
            journal.append({"sample_id": f"v/{number}", "text": "grün\nline"})
    return path.read_bytes()


def test_entries_are_read_back(tmp_path):
    filled(tmp_path / "j.jsonl")
    with Journal(tmp_path / "j.jsonl") as journal:
        assert [entry["sample_id"] for entry in journal.entries] == ["v/0", "v/1", "v/2"]
        assert journal.entries[0]["text"] == "grün\nline"


def test_truncated_at_every_byte(tmp_path):
    """Cut anywhere, the file gives the whole lines before the cut, and the next line appended is whole."""
    path = tmp_path / "j.jsonl"
    whole = filled(path)
    ends = [index + 1 for index, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        kept = sum(end - 1 <= cut for end in ends)  # a line that lacks only its line break is whole
        with Journal(path) as journal:
            assert len(journal.entries) == kept, cut
            journal.append({"sample_id": "next"})
        lines = path.read_bytes().split(b"\n")
        assert [json.loads(line)["sample_id"] for line in lines[:-1]] == [f"v/{number}" for number in range(kept)] + [
            "next"
        ]


def test_an_invalid_line_in_the_middle_is_named(tmp_path):
    path = tmp_path / "j.jsonl"
    lines = filled(path).splitlines(keepends=True)
    path.write_bytes(lines[0] + b'{"sample_id": \n' + lines[2])
    with pytest.raises(JournalError, match=r"j\.jsonl, line 2 is not valid JSON"):
        Journal(path)


def test_one_writer(tmp_path):
    with Journal(tmp_path / "j.jsonl"), pytest.raises(JournalError, match="another run"):
        Journal(tmp_path / "j.jsonl")
    Journal(tmp_path / "j.jsonl").close()


def test_a_full_disk_leaves_the_journal_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "j.jsonl"
    before = filled(path)
    with Journal(path) as journal:
        write, calls = os.write, []

        def full(descriptor, data):
            calls.append(data)
            if len(calls) > 1:
                raise OSError(28, "No space left on device")
            return write(descriptor, data[:10])

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(JournalError, match="No space left"):
            journal.append({"sample_id": "v/9"})
    assert path.read_bytes() == before


def test_every_line_is_synced(tmp_path, monkeypatch):
    with Journal(tmp_path / "j.jsonl") as journal:
        synced = []
        monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
        journal.append({"a": 1})
        journal.append({"b": 2})
        assert synced == [9, 18]
