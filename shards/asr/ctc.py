"""Recognition with a CTC model: Wav2Vec2, HuBERT, WavLM and others that read the waveform.

transformers' own pipeline gives the same words and times and no confidence; so the logits are read here, with the
tokenizer's own decoding.

B windows, N samples, F steps of the model, V tokens.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch

from shards.asr.recogniser import Heard, plain
from shards.record import Word


class CtcRecogniser:
    """Greedy decoding of a `...ForCTC` model.

    A model whose first convolution has a group norm (`feat_extract_norm: group`, the "base" ones) takes its statistics
    over the padding too, mask or not: its windows share a batch only with windows of exactly their length. That costs
    speed; models with layer norms ("large", "lv60", "xlsr") do not have it.

    Args:
        model: in evaluation mode, on its device.
        tokenizer: a Wav2Vec2CTCTokenizer.
        extractor: the model's feature extractor.
    """

    longest_s = float("inf")
    padded_s: float | None = None

    def __init__(self, model: Any, tokenizer: Any, extractor: Any) -> None:
        self.model, self.tokenizer, self.extractor = model, tokenizer, extractor
        self.rate_hz: int = extractor.sampling_rate
        self.step_s: float = model.config.inputs_to_logits_ratio / self.rate_hz
        self.only_equal: bool = getattr(model.config, "feat_extract_norm", "layer") == "group"

    def hear(self, windows: Sequence[np.ndarray]) -> list[Heard]:
        """What each window ([N] float32) says; see `Recogniser`."""
        inputs = self.extractor(
            list(windows), sampling_rate=self.rate_hz, padding=True, return_attention_mask=True, return_tensors="pt"
        )
        values_BN = inputs["input_values"].to(self.model.device, self.model.dtype)
        mask_BN = None if self.only_equal else inputs["attention_mask"].to(self.model.device)
        with torch.inference_mode():
            logits_BFV = self.model(values_BN, attention_mask=mask_BN).logits.float()
            best_BF, ids_BF = logits_BFV.log_softmax(dim=-1).max(dim=-1)
        steps = self.model._get_feat_extract_output_lengths(torch.tensor([len(window) for window in windows]))
        best, ids = best_BF.cpu().numpy(), ids_BF.cpu().numpy()
        return [
            read_tokens(ids[row, :length], best[row, :length], self.tokenizer, self.step_s)
            for row, length in enumerate(steps.tolist())
        ]


def read_tokens(ids_F: np.ndarray, log_probabilities_F: np.ndarray, tokenizer: Any, step_s: float) -> Heard:
    """The words of a window from the likeliest token of each step.

    A token lasts from its first to its last step, its log-probability is the mean over them. A word goes from its
    first token's start to its last one's end; its confidence is the mean probability of its tokens.

    Args:
        ids_F: [F] the likeliest tokens.
        log_probabilities_F: [F] theirs.
        tokenizer: a Wav2Vec2CTCTokenizer.
        step_s: seconds of one step.
    """
    tokens = tokenizer.decode(ids_F, output_char_offsets=True).char_offsets
    between, special = tokenizer.replace_word_delimiter_char, set(tokenizer.all_special_tokens)
    words, total, count = [], 0.0, 0
    for is_between, group in groupby(tokens, key=lambda token: token["char"] == between):
        letters = [token for token in group if token["char"] not in special]
        text = "" if is_between else plain("".join(token["char"] for token in letters))
        if not text:
            continue
        logs = [float(log_probabilities_F[token["start_offset"] : token["end_offset"]].mean()) for token in letters]
        start_s, end_s = float(letters[0]["start_offset"] * step_s), float(letters[-1]["end_offset"] * step_s)
        words.append(Word(text, start_s, end_s, float(np.exp(logs).mean())))
        total, count = total + sum(logs), count + len(logs)
    return Heard(words=tuple(words), log_probability=total, num_tokens=count)
