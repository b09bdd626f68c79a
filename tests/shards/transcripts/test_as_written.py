from shards.record import Word
from shards.transcripts.as_written import as_written


def timed(text: str) -> list[Word]:
    return [Word(word, float(place), place + 0.5) for place, word in enumerate(text.split())]


def spelled(heard: str, transcript: str) -> list[str]:
    words = timed(heard)
    written = as_written(words, transcript.split())
    assert [(word.start_s, word.end_s) for word in written] == [(word.start_s, word.end_s) for word in words]
    return [word.text for word in written]


def test_words_take_the_case_and_punctuation_of_the_transcript() -> None:
    assert spelled("oh my god i know", "Oh, my God! -- I know...") == ["Oh,", "my", "God!", "I", "know..."]
    assert spelled("WHAT", "“What?!”") == ["“What?!”"]


def test_what_is_not_the_same_word_stays_and_does_not_shift_the_others() -> None:
    assert spelled("well i am going", "Well, I'm going.") == ["Well,", "i", "am", "going."]
    assert spelled("no no no", "No. No!") == ["No.", "No!", "no"]
    assert spelled("see you", "See... uh... you!") == ["See...", "you!"]
    assert spelled("hi", "") == ["hi"]
    assert spelled("", "Hi.") == []
