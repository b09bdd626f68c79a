"""Tiny recognisers, made here and saved as published ones are; one knows what it hears: tones for letters."""

import json
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)

RATE_HZ = 16000
TONES_HZ = {"A": 400, "B": 900, "C": 1600, "D": 2600}
HUM_HZ = 6000
LETTER_S = 0.12
TOKENS = ("<pad>", "<s>", "</s>", "<unk>", "|", *TONES_HZ)


def spoken(words: list[tuple[str, float]], seconds: float, noise: int = 0) -> np.ndarray:
    """[N] float32: each letter of a word is a tone of 0.12 s, the word beginning at its time, over a faint hum.

    The model norms every step to the same loudness: pure noise between the words would look like anything.
    """
    times = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    draw = np.random.default_rng(noise)
    phase = draw.uniform(0, 2 * np.pi)  # a step is a whole number of periods: with one phase the model would learn that
    sound = 0.01 * np.sin(2 * np.pi * HUM_HZ * times + phase) + 0.0005 * draw.normal(size=len(times))
    for word, start_s in words:
        for place, letter in enumerate(word):
            first = round((start_s + place * LETTER_S) * RATE_HZ)
            times = np.arange(round(LETTER_S * RATE_HZ)) / RATE_HZ
            sound[first : first + len(times)] += 0.3 * np.sin(2 * np.pi * TONES_HZ[letter] * times)
    return sound.astype(np.float32)


def write_wav(path: Path, sound: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes((sound * 32767).astype("<i2").tobytes())


def ctc_model(norm: str) -> Wav2Vec2ForCTC:
    torch.manual_seed(0)
    return Wav2Vec2ForCTC(
        Wav2Vec2Config(
            vocab_size=len(TOKENS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
            conv_dim=(24, 24), conv_kernel=(40, 24), conv_stride=(20, 16), num_conv_pos_embeddings=4,
            num_conv_pos_embedding_groups=2, feat_extract_norm=norm, do_stable_layer_norm=norm == "layer",
            pad_token_id=0, hidden_dropout=0.0, attention_dropout=0.0, feat_proj_dropout=0.0, final_dropout=0.0,
            layerdrop=0.0, apply_spec_augment=False,
        )
    )  # fmt: skip


def teach(model: Wav2Vec2ForCTC, extractor: Wav2Vec2FeatureExtractor) -> None:
    """Which token each step belongs to; "|" is everything between words."""
    draw = np.random.default_rng(0)
    sounds, labels = [], []
    for index in range(120):
        words, start_s = [], draw.uniform(0.05, 0.3)
        while start_s < 0.75:
            words.append(("".join(draw.permutation(list(TONES_HZ))[: draw.integers(1, 4)]), start_s))
            start_s += len(words[-1][0]) * LETTER_S + draw.uniform(0.15, 0.4)
        sounds.append(spoken(words, 1.2, index))
        label = np.full(int(model._get_feat_extract_output_lengths(round(1.2 * RATE_HZ))), TOKENS.index("|"))
        for word, begin_s in words:
            for place, letter in enumerate(word):
                first = round((begin_s + place * LETTER_S) * RATE_HZ / 320)
                label[first : first + round(LETTER_S * RATE_HZ / 320)] = TOKENS.index(letter)
        labels.append(label)
    values = extractor(sounds, sampling_rate=RATE_HZ, return_tensors="pt").input_values
    wanted = torch.tensor(np.stack(labels))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, total_iters=100)
    for step in range(100):
        some = slice(step % 5, None, 5)
        loss = torch.nn.functional.cross_entropy(model(values[some]).logits.transpose(1, 2), wanted[some])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def save_ctc(folder: Path, norm: str, *, taught: bool) -> Path:
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(TOKENS)}))
    extractor = Wav2Vec2FeatureExtractor(return_attention_mask=norm == "layer", do_normalize=True)
    model = ctc_model(norm)
    if taught:
        teach(model, extractor)
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    Wav2Vec2CTCTokenizer(str(folder / "vocab.json")).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tone_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Wav2Vec2ForCTC that writes tones as letters; padding does not touch it."""
    return save_ctc(tmp_path_factory.mktemp("models") / "tones", "layer", taught=True)


@pytest.fixture(scope="session")
def group_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that knows nothing, with a group norm as in the published "base" ones."""
    return save_ctc(tmp_path_factory.mktemp("models") / "group", "group", taught=False)


def whisper_tokens() -> list[str]:
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    languages, tasks = ["<|en|>", "<|de|>", "<|zh|>"], ["<|translate|>", "<|transcribe|>"]
    special = ["<|endoftext|>", "<|startoftranscript|>", *languages, *tasks]
    times = [f"<|{index * 0.02:.2f}|>" for index in range(101)]
    return [*bytes_to_unicode().values(), *special, "<|nospeech|>", "<|notimestamps|>", *times]


LESSONS = (
    ("<|en|>", " ab cda", spoken([("AB", 0.3), ("CDA", 0.9)], 1.6, 1)),
    ("<|de|>", " Da, b!", spoken([("DA", 0.2), ("B", 0.8)], 1.1, 2)),
    ("<|zh|>", " bb", spoken([("BC", 0.2)], 0.9, 3)),
    ("<|nospeech|>", "", spoken([], 1.5, 4)),
)
"""Language, text, sound: what the Whisper below has learnt."""
TOLD = ("<|de|>", " dd", LESSONS[0][2])
"""What it writes of the first sound when German is asked for."""


def teach_whisper(
    model: WhisperForConditionalGeneration, extractor: WhisperFeatureExtractor, number: dict[str, int]
) -> None:
    """Language, text and end of each lesson, from the start token on; and to write what is asked for."""
    lessons = [*LESSONS, TOLD]
    features = extractor([sound for *_, sound in lessons], sampling_rate=RATE_HZ, return_tensors="pt").input_features
    rows = []
    for language, text, _ in lessons:
        letters = [number["Ġ" if letter == " " else letter] for letter in text]
        prompt = ["<|startoftranscript|>", language, "<|transcribe|>", "<|notimestamps|>"]
        rows.append(torch.tensor([*(number[token] for token in prompt), *letters, number["<|endoftext|>"]]))
    tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100)
    wanted = tokens[:, 1:].clone()
    wanted[-1, 0] = -100  # nobody hears that language there
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(200):
        said = model(features, decoder_input_ids=tokens[:, :-1].clamp(min=0)).logits
        loss = torch.nn.functional.cross_entropy(said.transpose(1, 2), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def whisper(number: dict[str, int]) -> WhisperForConditionalGeneration:
    torch.manual_seed(1)
    end = number["<|endoftext|>"]
    model = WhisperForConditionalGeneration(
        WhisperConfig(
            vocab_size=len(number), num_mel_bins=80, d_model=16, encoder_layers=1, decoder_layers=2,
            encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16,
            max_source_positions=100, max_target_positions=40, pad_token_id=end, bos_token_id=end, eos_token_id=end,
            decoder_start_token_id=number["<|startoftranscript|>"],
        )
    )  # fmt: skip
    settings = model.generation_config
    settings._from_model_config = False  # else it is made anew from the model's own config, without what follows
    settings.is_multilingual = True
    settings.lang_to_id = {token: number[token] for token in ("<|en|>", "<|de|>", "<|zh|>")}
    settings.task_to_id = {"transcribe": number["<|transcribe|>"], "translate": number["<|translate|>"]}
    settings.no_timestamps_token_id = number["<|notimestamps|>"]
    settings.alignment_heads = [[0, 1], [1, 0]]
    settings.max_length = 24
    settings.begin_suppress_tokens = None
    return model


@pytest.fixture(scope="session")
def whisper_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A WhisperForConditionalGeneration of 2 s windows with bytes as tokens that has learnt LESSONS by heart."""
    folder = tmp_path_factory.mktemp("models") / "whisper"
    tokens = whisper_tokens()
    number = {token: index for index, token in enumerate(tokens)}
    model, extractor = whisper(number), WhisperFeatureExtractor(chunk_length=2)
    teach_whisper(model, extractor, number)
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    tokenizer = WhisperTokenizer(vocab=number, merges=[], add_prefix_space=False)
    tokenizer.add_special_tokens({"additional_special_tokens": tokens[257:]})
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session", name="spoken")
def spoken_fixture() -> Callable[..., np.ndarray]:
    """`spoken([("AB", 0.3)], seconds)`: tones for letters."""
    return spoken


@pytest.fixture(scope="session")
def lessons() -> tuple[tuple[str, str, np.ndarray], ...]:
    """Language, text and sound of what `whisper_model` has learnt."""
    return LESSONS


@pytest.fixture(scope="session", name="write_wav")
def write_wav_fixture() -> Callable[[Path, np.ndarray], None]:
    """`write_wav(path, sound)` at 16 kHz."""
    return write_wav
