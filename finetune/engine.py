"""The engine of a fine-tuning: Accelerate where the model fits on every GPU, DeepSpeed where ranks share it out."""

from collections.abc import Mapping
from dataclasses import dataclass

from triptych.training import engine_deepspeed
from triptych.training.distributed import Distributed
from triptych.training.engine import Engine
from triptych.training.engine_accelerate import AccelerateEngine
from triptych.training.engine_deepspeed import DeepSpeedEngine, ZeroConfig
from triptych.training.optim import OptimizerConfig, Rate
from triptych.training.step_loss import Arithmetic
from triptych.training.task import Task


@dataclass(frozen=True, kw_only=True)
class EngineConfig(Arithmetic):
    """How the arithmetic of fine-tuning is done, and by what."""

    deepspeed: ZeroConfig | None = None
    """As {zero_stage: 2}: under DeepSpeed's ZeRO; without it under Accelerate, each rank with the whole model."""

    def build(
        self,
        task: Task,
        distributed: Distributed,
        *,
        optimizer: OptimizerConfig,
        num_micro_batches: int,
        max_steps: int,
        seed: int,
        rates: Mapping[str, Rate],
    ) -> Engine:
        """The engine of a run; see those of triptych for the arguments.

        Raises:
            UserError: a rate begins late under ZeRO.
        """
        if self.deepspeed is None:
            return AccelerateEngine(
                task, distributed, self, optimizer=optimizer, max_steps=max_steps, seed=seed, rates=rates
            )
        config = engine_deepspeed.EngineConfig(
            zero_stage=self.deepspeed.zero_stage,
            activation_checkpointing=self.deepspeed.activation_checkpointing,
            precision=self.precision,
            clip_norm=self.clip_norm,
        )
        return DeepSpeedEngine(
            task,
            distributed,
            config,
            optimizer=optimizer,
            num_micro_batches=num_micro_batches,
            max_steps=max_steps,
            seed=seed,
            rates=rates,
        )
