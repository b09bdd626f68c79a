"""Recognition with Whisper (Radford et al. 2022), which also tells the language.

transformers writes the text; its word times come without confidence and keep every step's attention of the whole batch.
So the finished text goes through the decoder once more, as in Whisper's own word timing: that gives the probability of
each token and the attention from which transformers' alignment reads the times.

B windows, M mel bands, S frames of the encoder, T tokens, H heads.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.whisper.tokenization_whisper import LANGUAGES, _combine_tokens_into_words

from shards.asr.recogniser import Heard, most_likely, plain
from shards.record import Word

_FRAMES_PER_MEL = 2
"""The encoder halves the rate of the mel frames."""
_NO_SPEECH = 0.6
_UNLIKELY = -1.0
"""Whisper's rule (section 4.5 of the paper): no words where the no-speech token has more than 0.6 and the text's mean
log-probability is below -1."""
_LONG_WORD_S = 0.7
_REPETITIVE = 2.4
"""Whisper's mark of a text that repeats itself without end: it compresses better than this."""


@dataclass(frozen=True)
class _Opening:
    """What the first step of the decoder says of a window."""

    languages: dict[str, float]
    no_speech: float


class WhisperRecogniser:
    """Greedy decoding without timestamp tokens; every window is padded to the model's 30 s.

    Args:
        model: a WhisperForConditionalGeneration in evaluation mode, on its device.
        tokenizer: its tokenizer.
        extractor: its feature extractor.
        language: code of the language to write; None: the one that is heard in a window.
    """

    only_equal = False  # all windows are padded to the same length

    def __init__(self, model: Any, tokenizer: Any, extractor: Any, language: str | None) -> None:
        self.model, self.tokenizer, self.extractor, self.language = model, tokenizer, extractor, language
        self.rate_hz: int = extractor.sampling_rate
        self.longest_s = float(extractor.chunk_length)
        self.padded_s: float | None = self.longest_s
        self.step_s: float = self.longest_s / model.config.max_source_positions
        self.language_ids = languages_of(model)

    def hear(self, windows: Sequence[np.ndarray]) -> list[Heard]:
        """What each window ([N] float32) says; see `Recogniser`."""
        inputs = self.extractor(
            list(windows), sampling_rate=self.rate_hz, return_attention_mask=True, return_tensors="pt"
        )
        frames_B = (inputs["attention_mask"].sum(dim=-1) // _FRAMES_PER_MEL).tolist()
        with torch.inference_mode():
            features_BMS = inputs["input_features"].to(self.model.device, self.model.dtype)
            encoded = BaseModelOutput(last_hidden_state=self.model.get_encoder()(features_BMS).last_hidden_state)
            openings = self._open(encoded, len(windows))
            languages = [self.language or most_likely(opening.languages) or "en" for opening in openings]
            texts = self._write(encoded, languages)
            return self._time(encoded, openings, languages, texts, frames_B)

    def _open(self, encoded: BaseModelOutput, num_windows: int) -> list[_Opening]:
        """Language and presence of speech, from the token that would follow the start."""
        settings = self.model.generation_config
        start = torch.full((num_windows, 1), settings.decoder_start_token_id, device=self.model.device)
        logits = self.model(encoder_outputs=encoded, decoder_input_ids=start, use_cache=False).logits[:, -1].float()
        no_speech = logits.softmax(dim=-1)[:, settings.no_timestamps_token_id - 1].tolist()
        if not self.language_ids:
            return [_Opening({}, probability) for probability in no_speech]
        among = logits[:, list(self.language_ids.values())].softmax(dim=-1).tolist()
        return [_Opening(dict(zip(self.language_ids, row)), silent) for row, silent in zip(among, no_speech)]

    def _write(self, encoded: BaseModelOutput, languages: list[str]) -> list[list[int]]:
        """Each window's text as token ids, special tokens left out."""
        wanted = {"language": languages, "task": "transcribe"} if self.language_ids else {}
        everything = torch.ones(encoded.last_hidden_state.shape[:2], device=self.model.device)
        tokens = self.model.generate(
            encoder_outputs=encoded,
            attention_mask=everything,
            return_timestamps=False,
            do_sample=False,
            num_beams=1,
            **wanted,
        )
        end = self.tokenizer.eos_token_id  # every special token comes after it
        return [[token for token in row if token < end] for row in tokens.tolist()]

    def _time(
        self,
        encoded: BaseModelOutput,
        openings: list[_Opening],
        languages: list[str],
        texts: list[list[int]],
        frames_B: list[int],
    ) -> list[Heard]:
        """Words with times and confidence: one pass of the decoder over the finished texts."""
        prompts = [self._prompt(language) for language in languages]
        first = len(prompts[0])
        rows = [torch.tensor(prompt + text) for prompt, text in zip(prompts, texts)]
        end = self.tokenizer.eos_token_id  # padding on the right is not seen by what stands before it
        tokens_BT = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=end).to(self.model.device)
        fast = self.model.config._attn_implementation
        self.model.set_attn_implementation("eager")  # the only one that returns its weights
        try:
            said = self.model(
                encoder_outputs=encoded, decoder_input_ids=tokens_BT, output_attentions=True, use_cache=False
            )
        finally:
            self.model.set_attn_implementation(fast)
        logs_BT = said.logits[:, :-1].float().log_softmax(dim=-1).gather(-1, tokens_BT[:, 1:, None])[..., 0].cpu()
        heard = []
        for row, (opening, text) in enumerate(zip(openings, texts)):
            attention = [layer[row, :, : first + len(text)] for layer in said.cross_attentions]
            times_s = token_times(self.model, attention, len(text), frames_B[row], self.step_s) if text else []
            logs = logs_BT[row, first - 1 : first - 1 + len(text)].tolist()
            heard.append(self._heard(opening, languages[row], text, times_s, logs))
        return heard

    def _prompt(self, language: str) -> list[int]:
        settings = self.model.generation_config
        chosen = [self.language_ids[language], settings.task_to_id["transcribe"]] if self.language_ids else []
        return [settings.decoder_start_token_id, *chosen, settings.no_timestamps_token_id]

    def _heard(
        self, opening: _Opening, language: str, text: list[int], times_s: Sequence[float], logs: list[float]
    ) -> Heard:
        if not text or (opening.no_speech > _NO_SPEECH and sum(logs) / len(logs) < _UNLIKELY):
            return Heard(languages=opening.languages)
        written = self.tokenizer.decode(text).encode()
        if len(written) / len(zlib.compress(written)) > _REPETITIVE:
            return Heard(languages=opening.languages, failed="the recogniser repeats itself")
        groups = _combine_tokens_into_words(self.tokenizer, text, LANGUAGES.get(language, language))
        words, total, count = [], 0.0, 0
        for raw, places in zip(groups[0], groups[2]):
            if word := plain(raw):
                own = [logs[place] for place in places]
                confidence = float(np.exp(own).mean())
                words.append(Word(word, times_s[places[0]], times_s[places[-1] + 1], confidence))
                total, count = total + sum(own), count + len(own)
        return Heard(words=without_lead(words), log_probability=total, num_tokens=count, languages=opening.languages)


def token_times(
    model: Any, attention_HTS: Sequence[torch.Tensor], num_tokens: int, num_frames: int, step_s: float
) -> list[float]:
    """Where the tokens of a text begin, by dynamic time warping over the attention of the model's alignment heads.

    A position of the decoder listens to the token that it predicts, so that the rows that count go from the last
    token of the prompt to the last but one of the text; the last row marks the text's end.

    Args:
        model: with `alignment_heads` in its generation config.
        attention_HTS: for each layer of the decoder the cross-attention of prompt and text.
        num_tokens: of the text, the last ones of T; at least one.
        num_frames: frames of the encoder with sound in them; what is behind is padding.
        step_s: of a frame.

    Returns:
        [num_tokens + 1] seconds: the start of each token, and the end of the last one.
    """
    skipped = attention_HTS[0].shape[1] - num_tokens - 1
    outputs = _Outputs(
        cross_attentions=(tuple(layer[None].float() for layer in attention_HTS),), sequences=torch.zeros(1, num_tokens)
    )
    times = model._extract_token_timestamps(
        outputs,
        model.generation_config.alignment_heads,
        time_precision=step_s,
        num_frames=torch.tensor([num_frames * _FRAMES_PER_MEL]),
        num_input_ids=skipped,
    )
    return times[0, skipped : skipped + num_tokens + 1].tolist()


def without_lead(words: Sequence[Word]) -> tuple[Word, ...]:
    """The words with the silence before the first one taken off it: the alignment begins at 0 whatever is heard there.

    As Whisper's own word timing does, a word that is longer than twice the median one begins later.
    """
    if not words:
        return ()
    longest_s = 2 * min(_LONG_WORD_S, float(np.median([word.end_s - word.start_s for word in words])))
    first = replace(words[0], start_s=max(words[0].start_s, words[0].end_s - longest_s))
    return (first, *words[1:])


class _Outputs(SimpleNamespace):
    """What transformers' alignment reads of a generation: `"beam_indices" in outputs` is asked too."""

    def __contains__(self, name: str) -> bool:
        return hasattr(self, name)


def languages_of(model: Any) -> dict[str, int]:
    """Code -> token of the languages that a Whisper model tells apart; empty for one that knows only English."""
    settings = model.generation_config
    if not getattr(settings, "is_multilingual", True) or not getattr(settings, "lang_to_id", None):
        return {}
    return {token.strip("<|>"): number for token, number in settings.lang_to_id.items()}
