"""YAML plus `a.b=c` overrides -> frozen dataclasses, strictly.

A schema is a frozen, keyword-only dataclass of such dataclasses; each component owns one and sees only that. A choice
between components is a dataclass with one optional field a component (`objectives: {masked_lm: {...}}`), so that adding
one is a file and a line. The file may name one other file as `base:` (relative to itself) and then lists only what
differs. The config never changes after loading; derived values are computed where they are used.
"""

import dataclasses
import difflib
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from triptych import typed_yaml

T = TypeVar("T")

LOST = 141
"""Exit status where standard output was lost (`... | head`, a full disk), as of a process that SIGPIPE ended: 1 says
that something is wrong with what was asked about."""


class UserError(ValueError):
    """A mistake of the user's, told in one message that says what, where and what to do; commands print only that."""


def config_folder() -> Path:
    """Where the shipped configs lie: inside the installed package, else beside it in a checkout."""
    package = Path(__file__).parent
    shipped = package / "configs"
    return shipped if shipped.is_dir() else package.parent / "configs"


def nearest(name: str, choices: Iterable[str]) -> str:
    """The end of a message about an unknown name: the choice that it resembles, and all of them."""
    choices = list(choices)
    similar = difflib.get_close_matches(name, choices, n=1)
    question = f" Did you mean {similar[0]}?" if similar else ""
    return f"{question} There are {', '.join(choices)}"


def find(name: str, stage: str) -> Path:
    """The config file that a command's first argument means: a path, or the name of a shipped config of the stage.

    Raises:
        UserError: neither is there; the message lists the shipped names.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = {file.stem: file for file in sorted((config_folder() / stage).glob("*.yaml"))}
    if name in shipped:
        return shipped[name]
    raise UserError(f"no config {name!r}: neither a file nor a shipped config of {stage}.{nearest(name, shipped)}")


def load(schema: type[T], source: Path | dict[str, Any], overrides: Sequence[str] = ()) -> T:
    """Build `schema` from a YAML file (or a dict) and overrides.

    Args:
        schema: a frozen dataclass.
        source: the file, or the same content as a dict.
        overrides: `a.b=c` strings, applied last; values are read as YAML, where the field is text as they are typed.

    Raises:
        UserError: unknown key (with the nearest name), duplicate key, wrong type, value out of range, or interpolation.
    """
    try:
        layers = [*map(OmegaConf.create, _layers(source, schema)), *(_override(each, schema) for each in overrides)]
        merged = OmegaConf.merge(OmegaConf.structured(schema), *layers)  # at once: each call copies the whole schema
        missing = sorted(OmegaConf.missing_keys(merged))
        if missing:
            raise UserError(f"{_name(source)}: required and not given: {', '.join(missing)}")
        return OmegaConf.to_object(merged)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        path = getattr(error, "full_key", None)
        message = str(getattr(error, "msg", None) or error).splitlines()[0]
        if "is not a ListConfig" in message:
            message = "expected a list, as in [a, b]"
        raise UserError(f"{_name(source)}: {path + ': ' if path else ''}{message}") from None
    except UserError:
        raise
    except ValueError as error:  # a component's own check in __post_init__
        raise UserError(f"{_name(source)}: {error}") from None


def to_dict(config: Any) -> dict[str, Any]:
    """A config as plain types, every default written out."""
    return OmegaConf.to_container(OmegaConf.structured(config))  # type: ignore[return-value]


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Plain types by their paths: {"a": {"b": 1}} is {"a.b": 1}. An empty mapping stays, a tuple becomes a list."""
    flat: dict[str, Any] = {}
    for name, inner in values.items():
        if isinstance(inner, Mapping) and inner:
            flat |= flatten(inner, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = list(inner) if isinstance(inner, tuple) else inner
    return flat


def save(config: Any, path: Path) -> None:
    """Write the resolved config, every default included, as YAML."""
    path.write_text(dump(config))


def dump(config: Any) -> str:
    """The resolved config as YAML text."""
    return yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)


def check_one_of(owner: Any, name: str) -> None:
    """Require that exactly one optional field of a choice is given.

    Raises:
        ValueError: none or several are; the message names them.
    """
    given = [field.name for field in dataclasses.fields(owner) if getattr(owner, field.name) is not None]
    if len(given) != 1:
        names = ", ".join(field.name for field in dataclasses.fields(owner))
        raise ValueError(f"{name}: give exactly one of {names}; given: {', '.join(given) or 'none'}")


def chosen(owner: Any) -> tuple[str, Any]:
    """Name and value of the one field of a choice that is given."""
    return next(
        (field.name, value) for field in dataclasses.fields(owner) if (value := getattr(owner, field.name)) is not None
    )


def help_status(arguments: Sequence[str], text: str, least: int = 1) -> int | None:
    """Print what a command can do where its arguments ask for it, or are too few to say what it should do.

    Returns:
        The exit status, 0 if help was asked for; None where there is a command to run.
    """
    asked = bool({"-h", "--help"} & set(arguments))
    if not asked and len(arguments) >= least:
        return None
    print(text)
    return 0 if asked else 2


def run_command(main: Callable[[], int | None]) -> None:
    """Run a command's main function: a user's mistake is printed as one message, anything else keeps its traceback."""
    _open_streams()
    try:
        status = main() or 0
        sys.stdout.flush()
        sys.exit(status)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped by the keyboard", file=sys.stderr)
        sys.exit(130)
    except SystemExit as leaving:  # rich's answer to a pipe that is closed is status 1, which means something else here
        if isinstance(leaving.__context__, BrokenPipeError):
            _leave_without_output()
        raise
    except OSError as error:
        if isinstance(error, BrokenPipeError) or _is_lost():
            _leave_without_output()
        raise


def _open_streams() -> None:
    """Where a daemon or cron closed them, what is said goes nowhere; a file opened later must not take their place."""
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            setattr(sys, name, open(number, "w", closefd=False))  # noqa: SIM115  (until the process ends)


def _is_lost() -> bool:
    """Whether standard output cannot be written to: not even a blank. What was refused once may be dropped by now."""
    try:
        sys.stdout.flush()
        os.write(sys.stdout.fileno(), b" ")
    except OSError:
        return True
    return False


def _leave_without_output() -> None:
    """End with `LOST`; what could not be written is dropped, else Python would complain once more when it flushes."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(LOST)


def _name(source: Path | dict[str, Any]) -> str:
    return str(source) if isinstance(source, Path) else "config"


def _layers(source: Path | dict[str, Any], schema: Any) -> list[dict[str, Any]]:
    """The file's content, preceded by its base's."""
    content = source if isinstance(source, dict) else read(source, schema)
    base = content.pop("base", None)
    if base is None:
        return [content]
    if isinstance(source, dict):
        raise UserError("config: base is for files")
    path = source.parent / str(base)
    below = read(path, schema)
    if "base" in below:
        raise UserError(f"{path}: a base cannot have a base of its own (named by {source})")
    return [below, content]


def read(path: Path, schema: Any) -> dict[str, Any]:
    """A YAML file as plain types, each text of the schema as it is written.

    Args:
        path: the file.
        schema: the dataclass that it is meant for; `Any` where none is known.

    Raises:
        UserError: it cannot be read, is no YAML or no mapping, gives a key twice, or wants interpolation.
    """
    from triptych.text_files import read_text  # only here: it stands on this module's UserError

    try:
        text = read_text(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    if "${" in text:  # OmegaConf would resolve ${oc.env:...} and copy secrets into the saved config
        raise UserError(f"{path}: interpolation (${{...}}) is not allowed; write the value or give it as an override")
    try:
        content = typed_yaml.read(text, schema)
    except yaml.YAMLError as error:
        raise UserError(f"{path}: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{path}: a config is a mapping of keys to values")
    return content


def _override(override: str, schema: Any) -> Any:
    key, separator, value = override.partition("=")
    if not separator or not key:
        raise UserError(f"override {override!r}: expected key.path=value")
    if "${" in value:
        raise UserError(f"override {override!r}: interpolation is not allowed")
    try:
        typed = typed_yaml.read_typed(value, typed_yaml.type_at(schema, key.split(".")))
    except yaml.YAMLError as error:
        told = " ".join(str(error).split())
        raise UserError(f"override {override!r}: the value is no YAML ({told})") from None
    layer = OmegaConf.create()
    OmegaConf.update(layer, key, typed)
    return layer
