"""What an encoder that is saved tells of the models of transformers in it, so that neither the hub nor their folder is
needed to build it again: a JSON file each, beside the weights."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from triptych.config import UserError
from triptych.models.towers.speech_encoder import SpeechModel, SpeechTower
from triptych.models.towers.text_encoder import TextEncoder, TextModel

TEXT, SPEECH = "text_model.json", "speech_model.json"
FILES = (TEXT, SPEECH)


@dataclass(frozen=True, kw_only=True)
class SavedModels:
    """Of each kind, the architecture of the one in an encoder; None where it has none, or is to be asked by name."""

    text: TextModel | None = None
    speech: SpeechModel | None = None

    @classmethod
    def within(cls, module: nn.Module) -> "SavedModels":
        """Those of an encoder."""
        parts = list(module.modules())
        return cls(
            text=next((part.text_model for part in parts if isinstance(part, TextEncoder)), None),
            speech=next((part.speech_model for part in parts if isinstance(part, SpeechTower)), None),
        )

    @classmethod
    def read(cls, folder: Path, names: Collection[str]) -> "SavedModels":
        """Those of a folder.

        Args:
            folder: of the encoder.
            names: files of it; others than FILES are no matter.

        Raises:
            UserError: one describes no model of this version.
        """
        found: dict[str, TextModel | SpeechModel] = {}
        for name in set(FILES) & set(names):
            try:
                content = (folder / name).read_text()
                found[name] = (TextModel if name == TEXT else SpeechModel).from_json(content)
            except ValueError as error:
                raise UserError(f"{folder / name}: describes no model of this version: {error}") from None
        return cls(text=found.get(TEXT), speech=found.get(SPEECH))  # type: ignore[arg-type]

    def of(self, modality: str) -> TextModel | SpeechModel | None:
        """The one in a modality's tower."""
        return {"text": self.text, "audio": self.speech}.get(modality)

    @property
    def files(self) -> dict[str, str]:
        """File name -> content, of those that are there."""
        both = {TEXT: self.text, SPEECH: self.speech}
        return {name: model.to_json() for name, model in both.items() if model is not None}


NONE_SAVED = SavedModels()
"""Of an encoder that is built for the first time."""
