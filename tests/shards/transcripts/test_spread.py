"""Words of which only the utterance's times are known."""

import pytest

from shards.transcripts.spread import spread


def test_words_follow_each_other_by_their_letters() -> None:
    words = spread(" Oh  my God, ", 1.0, 3.0)
    assert [word.text for word in words] == ["Oh", "my", "God,"]
    assert [word.start_s for word in words] == pytest.approx([1.0, 1.5, 2.0])
    assert [word.end_s for word in words] == pytest.approx([1.5, 2.0, 3.0])


def test_nothing_said_is_no_word() -> None:
    assert spread("  ", 0.0, 1.0) == ()
