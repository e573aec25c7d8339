"""What others do with a model unchanged: Trainer, PEFT, distributed data parallel."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import router_of, still_blocks, tiny_config, tiny_ids, tiny_model
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from qlm import QLMForCausalLM
from qlm.checkpoint_files import CheckpointError


class Rows(Dataset[dict[str, torch.Tensor]]):
    """Fixed random rows."""

    def __init__(self, n: int) -> None:
        self.ids = tiny_ids(n, 9)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.ids[index], "labels": self.ids[index]}


def test_trainer_trains_evaluates_and_saves(tmp_path: Path) -> None:
    model = tiny_model(spread=0.0)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=2,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        learning_rate=1e-2,
        eval_strategy="steps",
        eval_steps=2,
        save_steps=2,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    trainer = Trainer(model, arguments, train_dataset=Rows(16), eval_dataset=Rows(4))
    trainer.train()
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    metrics = trainer.evaluate()
    ids = Rows(4).ids
    with torch.no_grad():
        assert metrics["eval_loss"] == pytest.approx(float(model.eval()(ids, labels=ids).loss), rel=1e-5)
    with pytest.raises(
        CheckpointError, match=r"got optimizer\.pt in .*checkpoint-2.*copy config\.json and the safetensors"
    ):
        QLMForCausalLM.from_pretrained(tmp_path / "checkpoint-2")
    (tmp_path / "copied").mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(tmp_path / "checkpoint-2" / name, tmp_path / "copied")
    loaded = QLMForCausalLM.from_pretrained(tmp_path / "copied")
    for name, parameter in loaded.named_parameters():
        assert torch.equal(parameter, model.get_parameter(name)), name


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")  # peft asks by the old name
def test_lora_trains_adapters_alone(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    model = tiny_model()
    config = peft.LoraConfig(r=2, target_modules=["value_gate", "decay", "encode"], task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(model, config)
    frozen = {name: p.detach().clone() for name, p in adapted.named_parameters() if not p.requires_grad}
    optimizer = torch.optim.Adam([p for p in adapted.parameters() if p.requires_grad], lr=1e-1)
    losses = []
    for _ in range(3):
        loss = adapted(input_ids=tiny_ids(), labels=tiny_ids()).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    for name, parameter in adapted.named_parameters():
        assert name not in frozen or torch.equal(parameter, frozen[name]), name
    adapted.eval()
    adapted.save_pretrained(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} <= {".safetensors", ".json", ".md"}
    again = peft.PeftModel.from_pretrained(tiny_model(), tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(input_ids=tiny_ids()).logits, adapted(input_ids=tiny_ids()).logits)
        said = adapted.generate(input_ids=tiny_ids(1, 4), max_new_tokens=3, min_new_tokens=3, do_sample=False)
    assert said.shape == (1, 7)


def _train(rank: int, mode: str) -> dict[str, Any]:
    """Two steps on the process's own rows; on rank 1 no token is routed or explored."""
    torch.manual_seed(0)
    model = QLMForCausalLM(tiny_config(blocks=still_blocks(quantum=mode))).train()
    router = router_of(model)
    nn.init.zeros_(router.predict.weight)
    parallel = DistributedDataParallel(model, init_sync=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        nn.init.constant_(router.predict.bias, 2.0 if rank == 0 else -2.0)
        optimizer.zero_grad()
        ids = tiny_ids(seed=rank)
        parallel(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
    numbers = {name: float(p.detach().double().abs().sum()) for name, p in model.named_parameters()}
    del numbers["model.layers.1.predict.bias"]  # set by hand, differently
    return {"routed": model.reports()["1.quantum_router"].routed_share, "numbers": numbers}


def _process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    store = torch.distributed.FileStore(f"{folder}/store", 2)  # pyright: ignore[reportPrivateImportUsage] -- documented by torch
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    results = {mode: _train(rank, mode) for mode in ("circuit", "twin", "frozen", "off")}
    Path(folder, f"{rank}.json").write_text(json.dumps(results))
    torch.distributed.destroy_process_group()


def test_processes_stay_together_though_one_routes_nothing(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_process, (str(tmp_path),), nprocs=2)  # pyright: ignore[reportPrivateImportUsage] -- documented
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    for mode in first:
        assert first[mode]["numbers"] == second[mode]["numbers"]
        assert (first[mode]["routed"], second[mode]["routed"]) == ((0, 0) if mode == "off" else (1, 0))
