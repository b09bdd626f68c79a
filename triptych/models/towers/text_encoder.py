"""Words through a pretrained text encoder of transformers (BERT, RoBERTa, ...): a vector a word, or a vector a piece.

A clip's words become one sequence of sub-word pieces as that model wants it (`[CLS] ... [SEP]`), the model runs, and a
word's vector is the mean of its pieces' states. Khare et al. 2021 name such an encoder, for GloVe, as future work.

`cls: true` puts the state of the piece in front (`[CLS]`, RoBERTa's `<s>`) before the words, as SSE-FT reads it. It
sees what the words see: of a clip in several windows, those of the first one.

Each word is cut into pieces on its own, with a space before it, as inside a sentence. A word of the vocabulary is in
lower case, and so is what the model reads; a word outside of it is the model's unknown piece.

`unit: piece` is for published encoders (shards.reading.encoders): the text is read as it is written, with its case and
punctuation and without a vocabulary, by the model's own tokenizer, and each of its pieces has a vector, as in SSE-FT.

What is hidden is replaced by one mask piece before the model runs: zeroing its vector afterwards would be too late, as
its neighbours would have seen it, and with a mask for each piece its length would tell of it. Its vector is then what
the model makes of its neighbours.

A clip with more pieces than the model takes is read in several windows of whole words, one after the other and without
overlap: word t belongs to window `floor(pieces before t / stride)`, and no word sees past its window. The stride is
what the model takes less the longest word's pieces but one, so that no window overflows, whichever words it ends on.

What it costs: RoBERTa-base is 85 M weights beside its embeddings, or 0.17 GFLOP a piece. A clip of 8 s (26 words, about
35 pieces) takes 6 GFLOP forwards, thrice that when it is trained too. Frozen, it keeps no activations and no optimizer
state; only its weights are saved with the encoder.

Legend: B clips, T words (or pieces) of a clip, M those of all clips, K pieces of the longest word, R windows, L pieces
of the longest window, W width of the model.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from triptych.batch import Track
from triptych.config import UserError
from triptych.models.hub import be_quiet, not_loaded, plain
from triptych.models.towers.hub_model import HubModel
from triptych.models.towers.tower import Steps, Tower, TowerConfig, TowerPlace

KEY = "text_encoder.model"
NO_PIECE = -1
ENDLESS = 2**20
"""Pieces that a model without a longest length takes at once."""


@dataclass(frozen=True, kw_only=True)
class TextEncoderConfig(TowerConfig):
    """Which model, and how much of it."""

    pretrained: ClassVar[bool] = True

    model: str
    """Folder in transformers' format with tokenizer and safetensors, or name on the model hub."""
    layer: int = -1
    """Whose states are taken: 1 is the first layer, -1 the last one, -2 the one before. The layers behind it are not
    built (a model with a norm behind its last layer has it behind this one)."""
    train: bool = False
    """Pretrain the model with everything else; else it is frozen, without dropout. Fine-tuning has a `freeze`."""
    cls: bool = False
    """Begin a clip with the state of the model's own CLS, in front of its words. For a tower alone: no anchor and no
    label has a step for it."""
    unit: Literal["word", "piece"] = "word"
    """What has a vector. word: of the vocabulary, in lower case, the mean of its pieces. piece: each piece of the text
    as it is written; for a tower of a published encoder, as pretraining hides and asks for whole words."""

    def build(self, place: TowerPlace) -> Tower:
        """See TowerConfig."""
        from triptych.models.towers.transformer_towers import TextEncoderTower  # only here: it stands on this module

        return TextEncoderTower(self, place.spec, place.words, place.width, place.saved)


@dataclass(frozen=True, kw_only=True)
class TextModel:
    """All that is needed to build the model again and feed it, without its weights or its folder."""

    config: dict[str, Any]
    """transformers' own, of the layers that are used."""
    pieces: list[list[int]]
    """Word id -> its sub-word pieces; row 0 is the unknown word. Empty where ids are those of pieces."""
    before: list[int]
    """Pieces in front of a window."""
    after: list[int]
    mask: int
    pad: int
    max_pieces: int
    """Of a sequence, `before` and `after` included, as the tokenizer tells it."""
    tokenizer: str | None = None
    """Content of tokenizer.json, where ids are those of pieces."""

    def to_json(self) -> str:
        """Content of text_model.json; the tokenizer is not in it where there is none, as before there were any."""
        return json.dumps({name: value for name, value in asdict(self).items() if value is not None}) + "\n"

    @classmethod
    def from_json(cls, content: str) -> "TextModel":
        """What `to_json` wrote.

        Raises:
            ValueError: it is not that.
        """
        told = json.loads(content)
        names = {field.name for field in fields(cls)}
        if not isinstance(told, dict) or told.keys() | {"tokenizer"} != names:
            raise ValueError(f"expected {', '.join(sorted(names))}")
        return cls(**told)


class TextEncoder(HubModel):
    """Word ids -> vectors in context; see the module's text."""

    pieces: Tensor
    """[words + 1, K], padded with NO_PIECE."""
    before: Tensor
    after: Tensor
    hidden: Tensor
    """[K]: of a hidden word."""

    def __init__(self, config: TextEncoderConfig, words: Sequence[str], text_model: TextModel | None = None) -> None:
        """Build it with fresh weights; `start_weights` loads the pretrained ones.

        Args:
            config: which model.
            words: the vocabulary; word `i` has id `i + 1`. None of pieces.
            text_model: of a saved encoder; None asks the model's folder or the hub.

        Raises:
            UserError: no such model, or one that cannot be used.
        """
        super().__init__()
        from transformers import AutoConfig, AutoModel  # 2 s: only for who has such an encoder

        be_quiet()
        self.config = config
        self.text_model = text_model if text_model is not None else describe(config, words)
        settings = AutoConfig.for_model(**self.text_model.config)
        self.model = _without_pooler(
            AutoModel.from_config(settings, trust_remote_code=False, dtype=torch.float32).requires_grad_(False)
        )
        self.width: int = settings.hidden_size
        table = self.text_model.pieces
        longest = max(map(len, table), default=1)
        room = self._max_pieces() - len(self.text_model.before) - len(self.text_model.after)
        self.stride = room - longest + 1
        if config.cls and not self.text_model.before:
            raise UserError(f"text_encoder.cls: {config.model} has no piece in front of a text; leave cls out")
        if self.stride < 1:
            word = ("", *words)[max(range(len(words) + 1), key=lambda word: len(table[word]))]
            raise UserError(f"{KEY}: the word {word!r} has {longest} pieces, and {config.model} takes {room} at once")
        rows = [row + [NO_PIECE] * (longest - len(row)) for row in table]
        constants = {"pieces": rows, "before": self.text_model.before, "after": self.text_model.after}
        constants["hidden"] = [self.text_model.mask] + [NO_PIECE] * (longest - 1)
        for name, value in constants.items():  # saved in text_model.json, so not among the weights
            self.register_buffer(name, torch.tensor(value, dtype=torch.int64), persistent=False)
        self.train(self.training)
        if config.train:
            self.let_train()

    @property
    def published(self) -> nn.Module:
        """See HubModel."""
        return self.model

    def start_weights(self) -> None:
        """Load the pretrained weights.

        Raises:
            UserError: they are not there, not in safetensors, or do not fit; never is a weight left random.
        """
        from transformers import AutoConfig, AutoModel

        name = self.config.model
        try:
            model, info = AutoModel.from_pretrained(
                name,
                config=AutoConfig.for_model(**self.text_model.config),
                use_safetensors=True,
                trust_remote_code=False,
                dtype=torch.float32,
                output_loading_info=True,
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise UserError(not_loaded(KEY, name, "weights in safetensors", error)) from None
        if missing := sorted(key for key in info["missing_keys"] if not key.startswith("pooler.")):
            raise UserError(
                f"{KEY}: {name} lacks {len(missing)} weights of its own architecture, first: {missing[0]}; is it whole?"
            )
        self.model.load_state_dict(_without_pooler(model).state_dict())

    def forward(self, track: Track, layers: list[Steps] | None = None) -> Tensor:
        """[B, T] ids -> [B, T, W], with `cls` [B, 1 + T, W]; zeros where `steps` is False. For `layers` see
        Tower.forward: in all of them a word is the mean of its pieces."""
        ids_M = track.values[track.mask]
        pieces_MK = self.pieces[ids_M] if len(self.pieces) else ids_M[:, None]
        if track.hidden is not None:
            pieces_MK = torch.where(track.hidden[track.mask][:, None], self.hidden, pieces_MK)
        steps_BT = self.steps(track)
        real_MK = pieces_MK != NO_PIECE
        count_M = real_MK.sum(dim=1)
        row_M, size_R = self._windows(track.mask, count_M)
        first_R = size_R.cumsum(0) - size_R
        begin_M = count_M.cumsum(0) - count_M - first_R[row_M] + len(self.before)
        place_MK = begin_M[:, None] + torch.arange(pieces_MK.shape[1], device=pieces_MK.device)
        row_MK = row_M[:, None].expand_as(place_MK)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.trains):
            ids_RL, attended_RL = self._fill(pieces_MK[real_MK], row_MK[real_MK], place_MK[real_MK], size_R)
            states = self.model(input_ids=ids_RL, attention_mask=attended_RL, output_hidden_states=layers is not None)
            place_MK = place_MK.clamp(max=ids_RL.shape[1] - 1)

            def sequence(states_RLW: Tensor) -> Tensor:
                # Gathered, not added up by index, which on a GPU would round differently at every run.
                vectors_MW = (states_RLW[row_MK, place_MK] * real_MK[..., None]).sum(dim=1) / count_M[:, None]
                vectors_BTW = vectors_MW.new_zeros(*track.mask.shape, vectors_MW.shape[-1])
                vectors_BTW[track.mask] = vectors_MW
                if not self.config.cls:
                    return vectors_BTW
                cls_BW = vectors_MW.new_zeros(len(track.mask), vectors_MW.shape[-1])
                cls_BW[track.present] = states_RLW[_first_rows(row_M, track.mask), 0]
                return torch.cat([cls_BW[:, None], vectors_BTW], dim=1)

            vectors_BTW = sequence(states.last_hidden_state)
            if layers is not None:  # a norm behind the last layer may be in one of the two and not in the other
                layers += [Steps(sequence(states_RLW), steps_BT) for states_RLW in states.hidden_states[:-1]]
                layers.append(Steps(vectors_BTW, steps_BT))
        return vectors_BTW

    def steps(self, track: Track) -> Tensor:
        """[B, T] bool, with `cls` [B, 1 + T]: what is real of the output. A clip without words has no CLS either."""
        return torch.cat([track.present[:, None], track.mask], dim=1) if self.config.cls else track.mask

    def _windows(self, mask_BT: Tensor, count_M: Tensor) -> tuple[Tensor, Tensor]:
        """Window of each word, from 0 over all clips, and the pieces of each window. A batch without a word has one
        empty window, so that a model that is trained takes part in every step."""
        count_BT = torch.zeros_like(mask_BT, dtype=torch.int64)
        count_BT[mask_BT] = count_M
        window_BT = (count_BT.cumsum(dim=1) - count_BT) // self.stride
        clip_BT = torch.arange(len(mask_BT), device=mask_BT.device)[:, None].expand_as(mask_BT)
        most = mask_BT.shape[1] * len(self.hidden)  # windows of a clip
        _, row_M = torch.unique_consecutive((clip_BT * most + window_BT)[mask_BT], return_inverse=True)
        num_rows = int(row_M[-1]) + 1 if len(row_M) else 1
        size_R = torch.zeros(num_rows, dtype=torch.int64, device=mask_BT.device).index_add_(0, row_M, count_M)
        return row_M, size_R

    def _fill(self, pieces: Tensor, rows: Tensor, places: Tensor, size_R: Tensor) -> tuple[Tensor, Tensor]:
        """Ids and attention mask [R, L] of windows that have these pieces at these places."""
        begin, end_R = len(self.before), size_R + len(self.before)
        length_R = end_R + len(self.after)
        shape = (len(size_R), int(length_R.max()))
        ids_RL = torch.full(shape, self.text_model.pad, dtype=torch.int64, device=size_R.device)
        ids_RL[:, :begin] = self.before
        ids_RL[rows, places] = pieces
        every = torch.arange(shape[0], device=size_R.device)[:, None]
        ids_RL[every, end_R[:, None] + torch.arange(len(self.after), device=size_R.device)] = self.after
        attended_RL = torch.arange(shape[1], device=size_R.device) < length_R[:, None]
        return ids_RL, attended_RL.long()

    def _max_pieces(self) -> int:
        """What tokenizer, config and learnt positions allow; RoBERTa's first positions stand for padding."""
        limits = [self.text_model.max_pieces, self.text_model.config.get("max_position_embeddings") or ENDLESS]
        positions = getattr(getattr(self.model, "embeddings", None), "position_embeddings", None)
        if isinstance(positions, nn.Embedding) and positions.padding_idx is not None:
            limits.append(positions.num_embeddings - positions.padding_idx - 1)
        return min(limits)


def _first_rows(row_M: Tensor, mask_BT: Tensor) -> Tensor:
    """Window of the first word of each clip that has words."""
    words = mask_BT.sum(dim=1)
    words = words[words > 0]
    return row_M[words.cumsum(0) - words]


def describe(config: TextEncoderConfig, words: Sequence[str]) -> TextModel:
    """Read a model's config and cut every word into its tokenizer's pieces.

    Args:
        config: which model.
        words: the vocabulary; not used of pieces.

    Raises:
        UserError: no such model, no encoder, no such layer, or a tokenizer that does not fit.
    """
    from transformers import AutoConfig, AutoTokenizer

    name = config.model
    try:
        settings = AutoConfig.from_pretrained(name, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise UserError(not_loaded(KEY, name, "config and tokenizer", error)) from None
    specials: dict[str, Any] = {
        token: getattr(tokenizer, f"{token}_token_id", None) for token in ("unk", "mask", "pad")
    }
    lacking = [token for token, number in specials.items() if number is None]
    if lacking or settings.is_encoder_decoder or not hasattr(settings, "hidden_size"):
        raise UserError(
            f"{KEY}: {name} is a {settings.model_type} model"
            + (f" without {' and '.join(f'[{token.upper()}]' for token in lacking)}" if lacking else "")
            + "; expected an encoder that was trained with masked words: BERT, RoBERTa, DeBERTa, ELECTRA, ..."
        )
    _cut_layers(settings, config)
    of_pieces = config.unit == "piece"
    if of_pieces and not tokenizer.is_fast:
        raise UserError(f"text_encoder.unit: the tokenizer of {name} has no tokenizer.json; take unit: word")
    pieces = [] if of_pieces else _pieces_of(words, tokenizer, name)
    largest = max(tokenizer.get_vocab().values() if of_pieces else map(max, pieces))
    if largest >= settings.vocab_size:
        raise UserError(f"{KEY}: the tokenizer of {name} has a piece {largest}, its model only {settings.vocab_size}")
    around = tokenizer(tokenizer.mask_token)["input_ids"]
    middle = around.index(specials["mask"])
    return TextModel(
        config=plain(settings),
        pieces=pieces,
        before=around[:middle],
        after=around[middle + 1 :],
        mask=specials["mask"],
        pad=specials["pad"],
        max_pieces=min(tokenizer.model_max_length, ENDLESS),
        tokenizer=tokenizer.backend_tokenizer.to_str() if of_pieces else None,
    )


def _pieces_of(words: Sequence[str], tokenizer: Any, name: str) -> list[list[int]]:
    """Of the unknown word, then of each word."""
    unknown = [tokenizer.unk_token_id]
    given = tokenizer([f" {word}" for word in words], add_special_tokens=False)["input_ids"] if words else []
    if words and all(set(row) <= set(unknown) for row in given):
        raise UserError(f"{KEY}: the tokenizer of {name} knows none of the {len(words)} words; is it whole?")
    return [unknown, *(row or unknown for row in given)]


def _cut_layers(settings: Any, config: TextEncoderConfig) -> None:
    number = settings.num_hidden_layers
    layer = config.layer if config.layer > 0 else number + 1 + config.layer
    if not 1 <= layer <= number:
        raise UserError(
            f"text_encoder.layer: {config.layer}; {config.model} has {number} layers: 1 to {number}, or -1 to -{number}"
        )
    if getattr(settings, "layer_types", None):
        settings.layer_types = settings.layer_types[:layer]
    settings.num_hidden_layers = layer


def _without_pooler(model: Any) -> Any:
    """The model less what only its sentence vector needs: weights without a gradient, which ZeRO refuses."""
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    return model
