import logging
import os

import numpy as np
import pytest
import torch
from torch import nn

from panomask.checkpoint import Checkpointer, DetectionCheckpointer, PeriodicCheckpointer
from panomask.errors import InputError


class Detector(nn.Module):
    """A body of six layers and a head with one output a class."""

    def __init__(self, num_classes: int = 3, width: int = 4, kernel: int = 1):
        super().__init__()
        self.body = nn.Sequential(*(nn.Conv2d(width, width, kernel) for _ in range(6)))
        self.head = nn.Conv2d(width, num_classes, 1)


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(
        torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


def saved(folder, model: nn.Module, **kwargs) -> str:
    Checkpointer(model, str(folder)).save("model", **kwargs)
    return os.path.join(folder, "model.pth")


def test_save_and_resume_model_and_optimizer(tmp_path):
    model = Detector()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    sum(p.sum() for p in model.parameters()).backward()
    optimizer.step()
    checkpointer = Checkpointer(model, str(tmp_path), optimizer=optimizer)
    assert not checkpointer.has_checkpoint()
    assert checkpointer.get_checkpoint_file() == ""
    checkpointer.save("model_0000007", iteration=7)
    assert checkpointer.get_checkpoint_file() == str(tmp_path / "model_0000007.pth")

    other = Detector()
    other_optimizer = torch.optim.SGD(other.parameters(), lr=0.2, momentum=0.9)
    rest = Checkpointer(other, str(tmp_path), optimizer=other_optimizer).resume_or_load("unused.pth")
    assert rest == {"iteration": 7}
    assert same(model, other)
    assert other_optimizer.param_groups[0]["lr"] == 0.1
    momenta = [state["momentum_buffer"] for state in other_optimizer.state.values()]
    assert all(torch.equal(m, torch.ones_like(m)) for m in momenta)


def test_without_resume_only_the_model_is_loaded(tmp_path):
    model = Detector()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    Checkpointer(model, str(tmp_path), optimizer=optimizer).save("model")
    other_optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    checkpointer = Checkpointer(Detector(), str(tmp_path), optimizer=other_optimizer)
    rest = checkpointer.resume_or_load(str(tmp_path / "model.pth"), resume=False)
    assert "optimizer" in rest
    assert other_optimizer.param_groups[0]["lr"] == 0.2


def test_nothing_to_load():
    model = Detector()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert Checkpointer(model).load("") == {}
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_other_class_count_reinitialises_the_head_with_a_table(tmp_path, caplog):
    path = saved(tmp_path, Detector(num_classes=80))
    model = Detector(num_classes=3)
    head = model.head.weight.detach().clone()
    with caplog.at_level(logging.WARNING):
        DetectionCheckpointer(model).load(path)
    assert torch.equal(model.head.weight, head)
    table = caplog.messages[-1]
    assert "head.weight: (80, 4, 1, 1) in the file, (3, 4, 1, 1) here" in table
    assert "12" in table  # six weights and six biases of the body


class Classifier(nn.Module):
    """A body and Fast R-CNN's classifier: a row for each class and one for the background."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.body = Detector().body
        self.cls_score = nn.Linear(4, num_classes + 1)
        self.mask = nn.Conv2d(4, num_classes, 1)


def test_another_class_count_is_given_as_such(tmp_path, caplog):
    path = saved(tmp_path, Classifier(6))
    words = "6 classes in the checkpoint, 2 in the model"
    for match in ("parameters", "exact"):
        with pytest.raises(InputError, match=rf"does not fit the model: {words} \(4 weights have other"):
            Checkpointer(Classifier(2)).load(path, match=match)
    with caplog.at_level(logging.WARNING):
        Checkpointer(Classifier(2)).load(path)
    assert words in caplog.messages[0]


def test_missing_and_unexpected_weights_are_reported_once(tmp_path, caplog):
    path = saved(tmp_path, nn.ModuleDict({"body": Detector().body, "extra": nn.Linear(2, 2)}))
    with caplog.at_level(logging.WARNING):
        Checkpointer(Detector()).load(path)
    assert len(caplog.messages) == 1
    assert "head.{weight, bias}" in caplog.messages[0]
    assert "extra.{weight, bias}" in caplog.messages[0]


@pytest.mark.parametrize(
    "other, words",
    [
        (nn.Sequential(nn.Linear(3, 3)), "none of its 2 weights is known"),
        (Detector(width=8), "other shapes"),
        (Detector(kernel=3), r"6 of 14 weights have other shapes"),
    ],
    ids=["names", "width", "kernels"],
)
def test_checkpoint_of_another_model_is_refused_and_changes_nothing(tmp_path, other, words):
    path = saved(tmp_path, other)
    model = Detector()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(InputError, match=words) as caught:
        Checkpointer(model).load(path)
    assert str(caught.value).startswith(path)
    assert "another model" in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_the_table_of_what_differs_has_a_bounded_length(tmp_path, caplog):
    widths = (nn.ModuleList(nn.Linear(2, width) for _ in range(20)) for width in (3, 4))
    bodies = [
        nn.ModuleDict({"same": nn.ModuleList(nn.Linear(1, 1) for _ in range(40)), "x": x}) for x in widths
    ]
    path = saved(tmp_path, bodies[0])
    with caplog.at_level(logging.WARNING):
        Checkpointer(bodies[1]).load(path)
    assert "40" in caplog.messages[0]
    assert "... and 29 lines more" in caplog.messages[0]
    assert caplog.messages[0].count("\n") < 20


def test_a_shared_weight_is_missing_under_no_name(tmp_path, caplog):
    model = nn.ModuleDict({"a": nn.Linear(2, 2)})
    path = saved(tmp_path, model)
    shared = nn.ModuleDict({"a": nn.Linear(2, 2)})
    shared["b"] = shared["a"]
    with caplog.at_level(logging.WARNING):
        Checkpointer(shared).load(path, match="parameters")
    assert caplog.messages == []


def test_evaluation_demands_every_parameter_but_no_more(tmp_path):
    path = saved(tmp_path, nn.ModuleDict({"body": Detector().body}))
    with pytest.raises(InputError, match="2 weights of the model are not in the file, first head"):
        Checkpointer(Detector()).load(path, match="parameters")
    with pytest.raises(InputError, match="another number of classes"):
        Checkpointer(Detector()).load(saved(tmp_path, Detector(num_classes=80)), match="parameters")
    larger = saved(
        tmp_path, nn.ModuleDict({"body": Detector().body, "head": Detector().head, "x": nn.Linear(1, 1)})
    )
    Checkpointer(Detector()).load(larger, match="parameters")
    with pytest.raises(InputError, match="unknown to the model"):
        Checkpointer(Detector()).load(larger, match="exact")


def test_resuming_demands_every_entry(tmp_path):
    model = Detector()
    saved(tmp_path, model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(InputError, match="holds no optimizer"):
        Checkpointer(model, str(tmp_path), optimizer=optimizer).resume_or_load("")


def test_an_optimizer_of_another_kind_is_one_line(tmp_path):
    model = Detector()
    Checkpointer(model, str(tmp_path), optimizer=torch.optim.SGD([model.head.weight], lr=0.1)).save("model")
    resumed = Checkpointer(model, str(tmp_path), optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(InputError, match="'optimizer' state is of another optimizer, or of other param"):
        resumed.resume_or_load("")


@pytest.mark.parametrize("steps", [0, 1])
@pytest.mark.parametrize("kinds", [("SGD", "AdamW"), ("AdamW", "SGD")])
def test_the_state_of_another_optimizer_is_refused(tmp_path, kinds, steps):
    model = Detector()
    before, now = (getattr(torch.optim, kind)(model.parameters(), lr=0.1) for kind in kinds)
    for _ in range(steps):
        sum(p.sum() for p in model.parameters()).backward()
        before.step()
    Checkpointer(model, str(tmp_path), optimizer=before).save("model")
    words = rf"model\.pth: its 'optimizer' state is of another optimizer.* than this run's {kinds[1]}; resume"
    with pytest.raises(InputError, match=words):
        Checkpointer(model, str(tmp_path), optimizer=now).resume_or_load("")


def test_last_checkpoint_that_is_gone_is_named(tmp_path):
    path = saved(tmp_path, Detector())
    os.remove(path)
    with pytest.raises(InputError, match=r"model\.pth: no such file"):
        Checkpointer(Detector(), str(tmp_path)).resume_or_load("")


@pytest.mark.parametrize(
    "content, words", [(b"", "is empty"), (b"\n", "is empty"), (bytes(9), "no file name")]
)
def test_last_checkpoint_that_names_nothing(tmp_path, content, words):
    checkpointer = Checkpointer(Detector(), str(tmp_path))
    (tmp_path / "last_checkpoint").write_bytes(content)
    with pytest.raises(InputError, match=rf"last_checkpoint: .*{words}; write .* into it, or remove it"):
        checkpointer.get_checkpoint_file()
    saved(tmp_path, Detector())
    (tmp_path / "last_checkpoint").write_bytes(content)
    with pytest.raises(InputError) as caught:
        checkpointer.resume_or_load("")
    assert str(caught.value).startswith(str(tmp_path / "last_checkpoint"))
    assert "into it, such as model.pth, or remove it" in str(caught.value)


def test_an_address_is_a_file_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PANOMASK_CACHE", str(tmp_path))
    model = Detector()
    folder = tmp_path / "dl.fbaipublicfiles.com" / "detectron2"
    saved(folder, model)
    other = Detector()
    Checkpointer(other).load("detectron2://model.pth")
    assert same(model, other)
    with pytest.raises(InputError, match="give a path or an address"):
        Checkpointer(Detector()).load("s3://bucket/model.pth")


def test_broken_weights_are_never_written(tmp_path):
    model = Detector()
    checkpointer = Checkpointer(model, str(tmp_path))
    checkpointer.save("good")
    with torch.no_grad():
        model.head.bias[0] = float("nan")
    with pytest.raises(FloatingPointError, match=r"first head\.bias"):
        checkpointer.save("bad")
    assert sorted(os.listdir(tmp_path)) == ["good.pth", "last_checkpoint"]
    assert checkpointer.get_checkpoint_file().endswith("good.pth")


def test_other_processes_write_nothing(tmp_path):
    Checkpointer(Detector(), str(tmp_path), save_to_disk=False).save("model")
    assert os.listdir(tmp_path) == []


def test_entries_are_unique_and_have_a_state():
    checkpointer = Checkpointer(Detector())
    with pytest.raises(KeyError, match="model"):
        checkpointer.add_checkpointable("model", Detector())
    with pytest.raises(TypeError, match="state_dict"):
        checkpointer.add_checkpointable("number", 3)


def test_periodic_checkpointer_keeps_the_newest_also_of_an_earlier_process(tmp_path):
    def run(start: int, stop: int) -> None:
        checkpointer = Checkpointer(Detector(), str(tmp_path))
        periodic = PeriodicCheckpointer(checkpointer, 2, max_iter=10, max_to_keep=2)
        for iteration in range(start, stop):
            periodic.step(iteration)

    def files() -> list[str]:
        return sorted(path.name for path in tmp_path.glob("*.pth"))

    run(0, 5)
    assert files() == ["model_0000001.pth", "model_0000003.pth"]
    run(4, 6)
    assert files() == ["model_0000003.pth", "model_0000005.pth"]
    run(6, 10)
    assert files() == ["model_0000007.pth", "model_0000009.pth", "model_final.pth"]
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
    with pytest.raises(ValueError, match="at least one"):
        PeriodicCheckpointer(Checkpointer(Detector()), 2, max_to_keep=0)


def test_research_code_reads_formats_of_its_own(tmp_path):
    class Arrays(Checkpointer):
        def _load_file(self, filename):
            return {"model": dict(np.load(filename)), "matching_heuristics": True}

    model = Detector()
    np.savez(tmp_path / "a.npz", **{key: value.numpy() for key, value in model.state_dict().items()})
    other = Detector()
    Arrays(other).load(str(tmp_path / "a.npz"))
    assert same(model, other)
