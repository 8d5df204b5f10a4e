import pytest
import torch

from panomask.event_storage import EventStorage, get_event_storage, has_event_storage


def test_outside_a_trainer_everything_goes_nowhere():
    assert not has_event_storage()
    get_event_storage().put_scalar("a", 1.0)
    assert get_event_storage().latest() == {}


def test_the_innermost_storage_is_the_current_one():
    with EventStorage(3) as outer:
        with EventStorage() as inner:
            assert get_event_storage() is inner
        assert get_event_storage() is outer
        assert has_event_storage()
        assert outer.iter == outer.start_iter == 3
    assert not has_event_storage()


def test_scalars_keep_their_iteration_and_history():
    storage = EventStorage(10)
    for value in (1.0, 5.0, 3.0):
        storage.put_scalars(loss=torch.tensor(value))
        storage.put_scalar("lr", value / 10, smoothing_hint=False)
        storage.step()
    storage.put_scalar("late", 7, cur_iter=2)
    assert storage.latest()["loss"] == (3.0, 12)
    assert storage.latest()["late"] == (7.0, 2)
    assert storage.history("loss").values() == [(1.0, 10), (5.0, 11), (3.0, 12)]
    smoothed = storage.latest_with_smoothing_hint(20)
    assert smoothed["loss"] == (3.0, 12)  # the median of 1, 5, 3
    assert smoothed["lr"] == (0.3, 12)
    assert storage.latest_with_smoothing_hint(2)["loss"] == (4.0, 12)  # the median of 5, 3
    with pytest.raises(KeyError, match="known: late, loss, lr"):
        storage.history("nothing")


def test_count_samples_looks_at_iterations_not_at_values():
    storage = EventStorage()
    for iteration in (0, 5, 10, 11):
        storage.put_scalar("a", 1.0, cur_iter=iteration)
    assert [storage.count_samples("a", window) for window in (1, 2, 7, 100)] == [1, 2, 3, 4]


def test_a_name_has_one_smoothing_hint():
    storage = EventStorage()
    storage.put_scalar("a", 1.0)
    with pytest.raises(ValueError, match="'a'"):
        storage.put_scalar("a", 1.0, smoothing_hint=False)
    assert storage.smoothing_hints() == {"a": True}


def test_name_scope():
    storage = EventStorage()
    with storage.name_scope("stage0"):
        storage.put_scalar("loss", 1.0)
    storage.put_scalar("loss", 2.0)
    assert {name: value for name, (value, _) in storage.latest().items()} == {"stage0/loss": 1.0, "loss": 2.0}


def test_scalars_on_an_accelerator_wait_until_they_are_read(monkeypatch):
    """The order of values under one name holds, though tensors elsewhere are read later."""
    storage = EventStorage()
    # Without an accelerator here: what `put_scalar` queues for a tensor elsewhere.
    storage._pending.append(("a", torch.tensor(1.0), 0))
    storage.put_scalar("a", 2.0, cur_iter=1)
    assert storage._histories == {}
    assert storage.history("a").values() == [(1.0, 0), (2.0, 1)]
    assert storage.latest()["a"] == (2.0, 1)
    assert storage._pending == []


def test_images_and_histograms_are_kept_until_cleared():
    storage = EventStorage(4)
    storage.put_image("picture", torch.zeros(3, 2, 2))
    storage.put_histogram("weights", torch.tensor([0.0, 1.0, 1.0, 4.0]), bins=4)
    name, _, iteration = storage.vis_data[0]
    assert (name, iteration) == ("picture", 4)
    histogram = storage.histograms[0]
    assert histogram["bucket_counts"] == [1, 2, 0, 1]
    assert histogram["bucket_limits"] == [1, 2, 3, 4]
    assert (histogram["sum"], histogram["sum_squares"], histogram["num"]) == (6, 18, 4)
    storage.clear_images()
    storage.clear_histograms()
    assert storage.vis_data == storage.histograms == []


def test_state_restores_medians_but_nothing_to_be_written_again():
    storage = EventStorage()
    for value in (9.0, 1.0, 2.0):
        storage.put_scalar("loss", value)
        storage.step()
    resumed = EventStorage(3)
    resumed.load_state_dict(storage.state_dict(num_values=2))
    assert resumed.latest() == {}
    resumed.put_scalar("loss", 5.0)
    assert resumed.latest_with_smoothing_hint()["loss"] == (2.0, 3)  # the median of 1, 2, 5
