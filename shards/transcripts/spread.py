"""Times for words of which only the utterance's are known."""

from shards.record import Word


def spread(text: str, start_s: float, end_s: float) -> tuple[Word, ...]:
    """The words of an utterance one after the other, each as long as its share of the letters.

    An estimate, for corpora whose transcripts have no word times: say so in the clip's `source` as
    `"word_times": "spread"`.

    Args:
        text: words between white space; kept as they are.
        start_s: of the utterance, seconds from the clip's start.
        end_s: likewise.
    """
    parts = text.split()
    total = sum(len(part) for part in parts)
    words, done = [], 0
    for part in parts:
        first, done = done, done + len(part)
        edges = (start_s + (end_s - start_s) * letters / total for letters in (first, done))
        words.append(Word(part, *(round(edge, 6) for edge in edges)))
    return tuple(words)
