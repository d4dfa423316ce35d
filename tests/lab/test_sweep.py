"""A study runs each variant and seed once, also if it is killed and started again."""

import csv
import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from scipy import stats

from dit_nb.cost import cost
from dit_nb.lab.studies import STUDIES, _find_study, load_study
from dit_nb.lab.study_models import _make_model
from dit_nb.lab.sweep import (
    VERSION,
    Difference,
    Study,
    _fingerprint,
    _read_rows,
    by_variant,
    mean_interval,
    paired_difference,
    run_study,
    study_table,
    toy_run,
)
from support import raises_input_error

SMALL = Study("Does level matter?", [{"level": 0}, {"level": 3}], toy_run, seeds=3)
SLOW = """
from dit_nb.lab.sweep import Study, run_study, toy_run
if __name__ == "__main__":
    slow = Study("?", [{"level": i, "sleep": 0.15} for i in range(4)], toy_run, seeds=4)
    run_study("slow", slow, "%s", jobs=2, progress=False)
"""


def keys(rows):
    return sorted((r["level"], r["seed"]) for r in rows)


def test_every_variant_and_seed_once(tmp_path):
    path = tmp_path / "new" / "toy.csv"
    rows = run_study("toy", SMALL, path, progress=False)
    assert keys(rows) == [(a, s) for a in (0, 3) for s in range(3)]
    again = run_study("toy", SMALL, path, progress=False)
    assert again == rows, "nothing is run twice"
    more = run_study("toy", SMALL, path, seeds=5, progress=False)
    assert more[:6] == rows and len(more) == 10


def test_killed_and_resumed(tmp_path):
    path, script = tmp_path / "slow.csv", tmp_path / "slow.py"
    script.write_text(SLOW % path)
    for wait in (1, 4):  # rows that are there when the process is killed
        process = subprocess.Popen([sys.executable, str(script)], start_new_session=True)
        start = time.time()
        while (not path.exists() or path.read_text().count("\n") < 1 + wait) and time.time() - start < 60:
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    early = _read_rows(path)
    subprocess.run([sys.executable, str(script)], check=True, timeout=120)
    rows = _read_rows(path)
    assert keys(rows) == [(a, s) for a in range(4) for s in range(4)], "no row lost, none twice"
    assert rows[: len(early)] == early and 4 <= len(early) < 16


def test_a_slow_run_does_not_block_others(tmp_path):
    """Finished runs are on disk, though an earlier one is not finished."""
    path, script = tmp_path / "slow.csv", tmp_path / "slow.py"
    variants = '[{"level": i, "sleep": 300 if i == 0 else 0} for i in range(4)]'
    script.write_text(SLOW.replace('[{"level": i, "sleep": 0.15} for i in range(4)]', variants) % path)
    process = subprocess.Popen([sys.executable, str(script)], start_new_session=True)
    start = time.time()
    while (not path.exists() or path.read_text().count("\n") < 4) and time.time() - start < 200:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert keys(_read_rows(path))[:3] == [(1, 0), (2, 0), (3, 0)]


@pytest.mark.parametrize("lost", [1, 5, 30])
def test_a_partial_row_is_dropped(tmp_path, lost):
    path = tmp_path / "toy.csv"
    rows = run_study("toy", SMALL, path, progress=False)
    path.write_bytes(path.read_bytes()[:-lost])
    again = run_study("toy", SMALL, path, progress=False)
    assert [{**r, "seconds": 0} for r in again] == [{**r, "seconds": 0} for r in rows]


def test_rows_of_another_version_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "toy.csv"
    run_study("toy", SMALL, path, progress=False)
    before = path.read_bytes()
    other = Study("?", [{"level": 0, "width": 1}], toy_run)
    with pytest.raises(ValueError, match="out is .*toy.csv"):
        run_study("toy", other, path, progress=False)
    with pytest.raises(ValueError, match="out is .*toy.csv"):
        run_study("other", SMALL, path, progress=False)
    grid = Study(SMALL.question, [{"level": 0}, {"level": 7}], toy_run, seeds=3)
    with pytest.raises(ValueError, match="out is .*toy.csv"):
        run_study("toy", grid, path, progress=False)
    lines = before.decode().splitlines(keepends=True)
    path.write_text("".join([*lines[:-1], lines[-1].replace("toy,v", "toy,v9")]))
    with pytest.raises(ValueError, match="out is .*toy.csv"):
        run_study("toy", SMALL, path, progress=False)
    path.write_bytes(before)
    monkeypatch.setattr("dit_nb.lab.sweep.VERSION", VERSION + 1)
    with pytest.raises(ValueError, match="out is .*toy.csv"):
        run_study("toy", SMALL, path, progress=False)
    assert path.read_bytes() == before


DAMAGED = {
    "no text": lambda text: text + b"\xff\xfe\n",
    "a field too few": lambda text: text.replace(b"0,toy,", b"0,"),
    "a field too many": lambda text: text.replace(b"0,toy,", b"0,0,toy,"),
    "an open quote": lambda text: text.replace(b"0,toy,", b'"0,toy,'),
    "bytes of zero": lambda text: text + b"\0\0,\0\n",
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_damaged_rows_are_refused(tmp_path, damage):
    path = tmp_path / "toy.csv"
    run_study("toy", SMALL, path, progress=False)
    content = damage(path.read_bytes())
    path.write_bytes(content)
    with raises_input_error(f"out is {path}, but "):
        run_study("toy", SMALL, path, progress=False)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "content", [b"\x89PNG\r\n\x1a\n" * 9, b"x" * 50, b"level\n1,2", b"level,study,versio\n1"]
)
def test_another_file_is_refused_and_stays_as_it_is(tmp_path, content):
    """It has no line break at its end, after which a file of a study is cut."""
    path = tmp_path / "mine"
    path.write_bytes(content)
    with raises_input_error(f"out is {path}, but must be a new file or one of this study"):
        run_study("toy", SMALL, path, progress=False)
    assert path.read_bytes() == content


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with raises_input_error(f"out is {tmp_path}, but must be a new file"):
        run_study("toy", SMALL, tmp_path, progress=False)
    with raises_input_error(f"out folder {tmp_path / 'file'} cannot be written"):
        run_study("toy", SMALL, tmp_path / "file" / "toy.csv", progress=False)


def test_a_head_that_was_not_written_completely(tmp_path):
    path = tmp_path / "toy.csv"
    for cut in ("", "lev", "level,study,version,seed,seconds,machine,date"):
        path.write_text(cut)
        rows = run_study("toy", SMALL, path, seeds=1, progress=False)
        assert keys(rows) == [(0, 0), (3, 0)]


def test_bad_input(tmp_path):
    with pytest.raises(ValueError, match="jobs is 0"):
        run_study("toy", SMALL, tmp_path / "x.csv", jobs=0)
    with pytest.raises(ValueError, match="setting 'seconds'"):
        run_study("toy", Study("?", [{"seconds": 1}], toy_run), tmp_path / "x.csv")


def test_pairs_and_intervals():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        mean, low, high = mean_interval(rng.normal(1.0, 2.0, 5))
        hits += low < 1 < high
    assert 0.92 < hits / 400 < 0.98
    assert math.isnan(mean_interval([1.0])[1])
    noise = rng.normal(size=6)
    rows = [
        {"level": a, "seed": s, "m": 2 * a + noise[s]} for a in (0, 3) for s in range(6) if (a, s) != (3, 5)
    ]
    values = by_variant(rows, SMALL, "m")
    assert len(values[("0",)]) == 5, "a seed that one variant lacks is left out of all"
    assert np.allclose(values[("3",)] - values[("0",)], 6)
    assert "+6.000 to +6.000" in study_table(rows, SMALL, "m")


def test_a_paired_difference_is_a_t_test_of_the_differences():
    rng = np.random.default_rng(1)
    first, gaps = 5 * rng.normal(size=6), rng.normal(0.5, 1, 6)
    found = paired_difference(first, first + gaps)
    assert (found.mean, found.low, found.high) == pytest.approx(mean_interval(gaps))
    assert found.p == pytest.approx(stats.ttest_1samp(gaps, 0).pvalue) and found.seeds == 6
    assert (found.p < 0.05) == (found.low > 0 or found.high < 0)


@pytest.mark.parametrize(
    "p, words", [(0.004, ("clear", "likely")), (0.04, ("likely",) * 2), (0.06, ("unknown",) * 2)]
)
def test_words_count_the_comparisons(p, words):
    found = Difference(1.0, 0.5, 1.5, p, 5)
    assert (found.word(10), found.word(20)) == words


@pytest.mark.parametrize("name", STUDIES)
def test_recorded_rows_are_complete(name):
    study, rows = _find_study(name), load_study(name)
    wanted = {
        (*map(str, variant.values()), seed) for variant in study.variants for seed in range(study.seeds)
    }
    found = [(*(str(r[k]) for k in study.variants[0]), r["seed"]) for r in rows]
    assert sorted(found) == sorted(wanted), "each variant and seed once"
    for r in rows:
        assert (r["study"], r["version"]) == (name, _fingerprint(study)) and r["machine"] and r["date"]
        scores = [v for k, v in r.items() if k.startswith("frechet")]
        assert scores and all(0 < v < 100 for v in scores)
        assert all(0 <= r[k] <= 1 for k in ("accuracy", "precision", "recall") if k in r)
        if "macs" in r and r.get("net") != "unet":
            counted = cost(_make_model({k: r[k] for k in study.variants[0]}).config)
            assert (r["macs"], r["parameters"]) == (counted.total_macs, counted.total_params)


def test_the_csv_is_plain(tmp_path):
    path = tmp_path / "toy.csv"
    run_study("toy", SMALL, path, progress=False)
    with path.open(newline="") as file:
        table = list(csv.reader(file))
    assert {len(row) for row in table} == {len(table[0])} and table[0][0] == "level"
