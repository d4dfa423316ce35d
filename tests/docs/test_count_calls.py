"""What a reader must open to follow one training step or one sampling call."""

import count_calls


def test_a_training_step_enters_few_functions():
    files = count_calls.train_step()
    assert {"step", "losses"} <= _names(files["training.py"])
    assert sum(map(len, files.values())) <= 40, files


def test_a_sampling_call_enters_few_functions():
    files = count_calls.sampling_call()
    assert "sample_images" in _names(files["pretrained.py"])
    assert "q_posterior" in _names(files["schedule.py"])  # DDPM
    assert sum(map(len, files.values())) <= 40, files


def _names(functions: set[str]) -> set[str]:
    "Without the class, and without line numbers, by which Python 3.10 tells functions apart."
    return {name.split(":")[0].split(".")[-1] for name in functions}
