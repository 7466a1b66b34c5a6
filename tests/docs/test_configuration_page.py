"""docs/configuration.md is what the dataclasses say."""

from __future__ import annotations

from training_scripts import configuration_page
from verl.config import Config, read_key_groups


def test_the_page_is_current(capsys):
    assert configuration_page.main(["--check"]) == 0, capsys.readouterr().out


def test_a_page_that_is_not_current_is_found(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(configuration_page, "PAGE", tmp_path / "configuration.md")
    assert configuration_page.main(["--check"]) == 1
    assert configuration_page.main([]) == 0 and configuration_page.main(["--check"]) == 0
    page = tmp_path / "configuration.md"
    page.write_text(page.read_text().replace("| `5`", "| `6`").replace("`data.seed`", "`data.sed`"))
    assert configuration_page.main(["--check"]) == 1
    assert "run make configuration" in capsys.readouterr().out


def test_comments_are_read_from_the_source():
    keys = {key.name: key for group in read_key_groups(Config) for key in group.keys}
    assert keys["data.seed"].comment == "of the order, the frames drawn and the sampling"  # behind the key
    assert keys["worker.actor.fsdp.fsdp_size"].comment.startswith("ranks that share one copy")  # above it
    assert keys["worker.actor.optim.betas"].default == "[0.9, 0.999]"
    assert keys["trainer.max_steps"].type == "int | None" and keys["trainer.max_steps"].default == "null"
    assert len(keys) > 100 and all(key.comment for key in keys.values())
