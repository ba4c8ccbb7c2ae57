"""Parts of documents that scripts write."""

from __future__ import annotations

from pathlib import Path

from experiments.common.markdown import Table, replace_section


def test_a_section_is_appended_once_and_then_replaced(tmp_path: Path) -> None:
    file = tmp_path / "document.md"
    file.write_text("# Results\n\nBefore.\n\n<!-- a -->\nold \\1\n<!-- /a -->\n\nAfter.\n")
    replace_section(file, "a", "new \\1")
    replace_section(file, "b", "first")
    replace_section(file, "b", "second")
    assert file.read_text() == (
        "# Results\n\nBefore.\n\n<!-- a -->\nnew \\1\n<!-- /a -->\n\nAfter.\n\n<!-- b -->\nsecond\n<!-- /b -->\n"
    )


def test_a_table_has_a_heading_its_rows_and_a_note() -> None:
    shown = Table("Ranks", ("strategy", "rank"), (("layer", "2"),), "Lower is better.").markdown()
    assert shown == "### Ranks\n\n| strategy | rank |\n|---|---|\n| layer | 2 |\n\nLower is better.\n"
