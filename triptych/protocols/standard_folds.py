"""Official folds by video, known by their numbers and hash: the lists are the corpora's and lie in the user's files."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from triptych.config import UserError
from triptych.protocols.leaks import SPLITS, Clip
from triptych.protocols.splits import Fold, SplitRule, own_split, split_sha256


@dataclass(frozen=True)
class StandardFolds:
    """Folds that everybody scores on."""

    name: str
    """"mosei/standard"."""
    num_videos: Mapping[str, int]
    sha256: str
    """Of the sorted "video<TAB>split" lines."""

    def verdict(self, splits: Mapping[str, str]) -> str:
        """Whether videos are divided as in the standard folds, in words; of a part, that cannot be known.

        Args:
            splits: video -> split.

        Raises:
            UserError: they cannot be the standard folds.
        """
        counts = Counter(splits.values())
        found, expected = (" / ".join(str(number[name]) for name in SPLITS) for number in (counts, self.num_videos))
        videos = {split: [video for video in splits if splits[video] == split] for split in SPLITS}
        if split_sha256(videos) == self.sha256:
            return f"the standard folds, {found} videos"
        if any(counts[name] > self.num_videos[name] for name in SPLITS) or found == expected:
            raise UserError(
                f"split {self.name}: these are not the standard folds: {found} videos in {', '.join(SPLITS)}, "
                f"published {expected}, or others. Give the corpus the folds of the CMU-MultimodalSDK, or follow yours "
                "by name: split.by=source"
            )
        return f"{found} of the {expected} videos of the standard folds; of a part, the hash cannot tell"

    def _describe(self, clips: Sequence[Clip]) -> str:
        return self.verdict({clip.source["video"]: clip.source["split"] for clip in clips if "split" in clip.source})

    def rule(self, published: Mapping[str, int], source: str) -> SplitRule:
        """The split rule.

        Args:
            published: split -> segments in use.
            source: of both numbers.
        """
        fold = Fold(name=self.name, place=own_split, describe=self._describe)
        return SplitRule(name=self.name, folds=(fold,), published=published, source=source)
