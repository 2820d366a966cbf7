"""The examples that an analysis looks at: which, in which order, and what that costs."""

from dataclasses import replace

import pytest

from randlora.analysis.evaluating import Evaluator
from randlora.analysis.runs import open_runs
from randlora.training import MethodConfig, train

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("examples", [8, None])
def test_a_loss_is_taken_in_order_of_length_and_features_are_not(examples, text_config, tmp_path):
    data = replace(text_config.data, group_by_length=True)
    optimization = replace(text_config.optimization, eval_batch_size=4)
    train(replace(text_config, data=data, optimization=optimization, method=MethodConfig(name="lora", r=2)))
    (run,) = open_runs([text_config.output])
    task = run.task()
    evaluator = Evaluator(run, task, run.model(task), "test", examples, tmp_path)
    scored = [batch["input_ids"] for batch in evaluator.trainer.get_eval_dataloader(evaluator.data)]
    mixed = [batch["input_ids"] for batch in evaluator.batches(4)]
    assert _lengths(scored) == [len(row["input_ids"]) for row in evaluator.data]
    assert len(_lengths(scored)) == evaluator.count == (examples or 16)
    assert sorted(_lengths(mixed)) == sorted(_lengths(scored))
    assert sum(batch.numel() for batch in scored) < sum(batch.numel() for batch in mixed)


def _lengths(batches):
    return [int((row != 0).sum()) for batch in batches for row in batch]
