"""Private functions of other libraries that the product uses: a complete list, with what is expected of each.

A private name may go or change with any release, without a word in its changelog. `make newest` runs these on the
newest versions.
"""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

ROOT = Path(__file__).parents[1]
PACKAGES = ("triptych", "shards", "pretrain", "finetune", "linear_probe")

USED = {
    "_BatchNorm": "triptych/models/norms.py",
    "_attn_implementation": "shards/asr/whisper.py",
    "_combine_tokens_into_words": "shards/asr/whisper.py",
    "_extract_token_timestamps": "shards/asr/whisper.py",
    "_foreach_mul_": "triptych/training/engine.py",
    "_get_feat_extract_output_lengths": "shards/asr/ctc.py",
    "_lazy_init_hp_params_optimizer_state": "triptych/training/engine_deepspeed.py",
    "_linear_pointwise": "triptych/models/linear.py",
    "_reassign_or_swap_out_partitioned_parameters": "triptych/training/engine_deepspeed.py",
    "_run_exitfuncs": "pretrain/__main__.py",
    "_softmax_backward_data": "triptych/models/long_attention.py",
    "_trial_id": "finetune/search/trials.py",
}
"""Name -> the one file that uses it."""
DOCUMENTED = {"_exit"}
"""Public in spite of its name: os._exit."""


def private(tree: ast.AST) -> set[str]:
    """Names with one leading underscore that are read off something, imported, or a part of an imported path."""
    read = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            read |= {alias.name for alias in node.names} | set((node.module or "").split("."))
        elif isinstance(node, ast.Import):
            read |= {part for alias in node.names for part in alias.name.split(".")}
    return {name for name in read if name.startswith("_") and not name.startswith("__")}


def own(tree: ast.AST) -> set[str]:
    """Names that a file itself gives: functions, classes, fields, attributes that it sets."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.id if isinstance(node, ast.Name) else node.attr)
    return names


def foreign(sources: dict[str, str]) -> dict[str, list[str]]:
    """Private name that none of the files gives -> the files that use it."""
    trees = {name: ast.parse(source) for name, source in sources.items()}
    given = set().union(*map(own, trees.values())) | DOCUMENTED
    used: dict[str, list[str]] = {}
    for file, tree in trees.items():
        for name in private(tree) - given:
            used.setdefault(name, []).append(file)
    return used


def test_the_list_is_complete_and_nothing_else_is_used() -> None:
    files = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
    used = foreign({str(file.relative_to(ROOT)): file.read_text() for file in files})

    assert used == {name: [file] for name, file in USED.items()}, "put it into USED, and a test of it below"


@pytest.mark.parametrize(
    "source",
    ["torch._foo(1)", "from torch import _foo", "import torch._foo", "from torch._foo import bar", "model._foo.bar"],
)
def test_each_way_of_using_one_is_seen(source: str) -> None:
    assert foreign({"a.py": source, "b.py": "x = 1"}) == {"_foo": ["a.py"]}


def test_own_names_are_not_taken_for_foreign_ones() -> None:
    assert not foreign({"a.py": "class A:\n    def _foo(self): self._bar = 1", "b.py": "a._foo(a._bar, os._exit)"})


def test_foreach_mul_multiplies_in_place() -> None:
    gradients = [torch.arange(6.0).view(2, 3), torch.tensor([8.0])]
    expected = [gradient / 4 for gradient in gradients]

    torch._foreach_mul_(gradients, 1 / 4)

    assert all(torch.equal(left, right) for left, right in zip(gradients, expected, strict=True))


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
@pytest.mark.parametrize("bias", [True, False])
def test_linear_pointwise_is_linear(bias: bool) -> None:
    layer, x = nn.Linear(17, 5, bias=bias), torch.randn(3, 17)

    found = torch.ops.mkldnn._linear_pointwise(x, layer.weight, layer.bias, "none", [], "")

    torch.testing.assert_close(found, layer(x))


def test_softmax_backward_data_is_the_gradient_of_softmax() -> None:
    scores = torch.randn(4, 7, requires_grad=True)
    weights, d_weights = scores.softmax(-1), torch.randn(4, 7)
    weights.backward(d_weights)

    torch.testing.assert_close(
        torch._softmax_backward_data(d_weights, weights.detach(), -1, torch.float32), scores.grad
    )


def test_batch_norm_base_is_that_of_every_batch_norm() -> None:
    from torch.nn.modules.batchnorm import _BatchNorm

    assert all(issubclass(kind, _BatchNorm) for kind in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d))
    assert issubclass(nn.SyncBatchNorm, _BatchNorm)
    assert not any(issubclass(kind, _BatchNorm) for kind in (nn.LayerNorm, nn.GroupNorm))


def test_feature_lengths_are_those_of_the_model() -> None:
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16, "num_hidden_layers": 1}
    model = Wav2Vec2Model(Wav2Vec2Config(**sizes, conv_dim=(8,) * 7, num_conv_pos_embeddings=4)).eval()
    for samples in (400, 719, 720, 16_000):
        with torch.inference_mode():
            steps = model(torch.zeros(1, samples)).last_hidden_state.shape[1]
        assert model._get_feat_extract_output_lengths(torch.tensor([samples])).tolist() == [steps]


def test_attention_implementation_is_what_was_set() -> None:
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16, "num_hidden_layers": 1}
    model = BertModel(BertConfig(**sizes))
    for name in ("eager", "sdpa"):
        model.set_attn_implementation(name)
        assert model.config._attn_implementation == name


def test_token_timestamps_take_what_whisper_gives_them() -> None:
    from transformers import WhisperForConditionalGeneration

    names = inspect.signature(WhisperForConditionalGeneration._extract_token_timestamps).parameters

    # what comes out is tested in tests/shards/asr/test_whisper.py
    assert {"alignment_heads", "time_precision", "num_frames", "num_input_ids"} <= names.keys()


def test_zero_stages_have_what_a_restart_calls() -> None:
    from deepspeed.runtime.zero.stage3 import DeepSpeedZeroOptimizer_Stage3
    from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer

    lazy = inspect.signature(DeepSpeedZeroOptimizer._lazy_init_hp_params_optimizer_state)
    reassign = inspect.signature(DeepSpeedZeroOptimizer_Stage3._reassign_or_swap_out_partitioned_parameters)

    # that a restart with them is bit-equal is tested in tests/triptych/training/test_engine.py
    assert list(lazy.parameters) == ["self"]
    # DeepSpeed wraps it for its traces: the arguments that are left to see are those of the wrapper
    reassign.bind(None, 0)


def test_whispers_pieces_become_words() -> None:
    from transformers.models.whisper.tokenization_whisper import _combine_tokens_into_words

    class Tokenizer:
        eos_token_id = 9  # what comes after it is a mark, no text

        def decode(self, tokens: list[int], **_: object) -> str:
            return "".join([" how", " ma", "ny", "?"][token] for token in tokens)

    words, tokens, places = _combine_tokens_into_words(Tokenizer(), [0, 1, 2, 3], "english")

    assert (words, tokens, places) == ([" how", " many?"], [[0], [1, 2, 3]], [[0], [1, 2, 3]])


def test_a_frozen_trial_knows_its_number_in_the_storage() -> None:
    import optuna

    study = optuna.create_study()
    asked = study.ask()
    (frozen,) = study.get_trials(states=(optuna.trial.TrialState.RUNNING,))

    again = optuna.Trial(study, frozen._trial_id)

    assert again.number == asked.number
    study.tell(again, 1.0)
    assert study.best_value == 1.0


def test_exit_handlers_run_and_the_process_ends_with_the_given_code() -> None:
    script = "import atexit, os; atexit.register(print, 'ran', flush=True); atexit._run_exitfuncs(); os._exit(3)"

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert (done.stdout, done.returncode) == ("ran\n", 3)
