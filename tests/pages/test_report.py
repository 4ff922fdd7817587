"""The report: what it says in every state of a run, and that no file can keep it from being written."""

import json
import re
import shutil
from pathlib import Path

import pytest

from opendino.monitor.metrics import MetricsLog
from opendino.pages import page as page_module
from opendino.pages.charts import MAX_POINTS, Bar, bar_chart, knn_chart, protocol_charts, series
from opendino.pages.dense import dense_charts
from opendino.pages.record import read_record
from opendino.pages.report import write_report
from opendino.pages.words import duration
from tests.pages.fake_run import HOSTILE, make_demo, make_run


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "photos", steps=400)


@pytest.fixture(autouse=True)
def without_library(monkeypatch):
    """Five megabytes of plotting library add nothing but time to most of these tests."""
    monkeypatch.setattr(page_module, "_scripts", lambda ours: ("library", "ours"))


def text(run: Path, running: bool = False) -> str:
    """The page without its scripts."""
    return re.sub(r"<script>.*?</script>", "", write_report(run, running).read_text(), flags=re.S)


def test_a_finished_run(finished):
    page = text(finished)
    assert 'class="pill finished"' in page and "earned: k-NN" in page and 'http-equiv="refresh"' not in page
    for words in (
        "k-NN accuracy",
        "seg-linear on camvid",
        "depth-linear on rooms",
        "Dense features: no degradation at this scale, k-NN segmentation is at its best",
        "Dense features: k-NN segmentation",
        "DINO loss",
        "iBOT loss",
        "KoLeo loss",
        "Teacher entropy",
        "Directions in use",
        "Gradient norm",
        "Learning rate",
        "Health: targets are spread",
        "opendino.load(",
        "opendino show pca",
    ):
        assert words in page, words
    assert "about one for every five of 5,210 pictures" in page
    assert "12 × truncated" in page and "3 × not-an-image" in page
    assert page.count('alt="feature maps at step') == 12
    assert "uniform, ln K = 6.93" in page and "chance 5.0 %" in page and "random start" in page


def test_a_running_run_reloads_and_says_the_time_left(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "half")
    rows = [line for line in (run / "metrics.jsonl").read_text().splitlines() if json.loads(line)["step"] <= 200]
    (run / "metrics.jsonl").write_text("\n".join(rows) + '\n{"kind": "step", "st')
    page = text(run, running=True)
    assert '<meta http-equiv="refresh" content="10">' in page and 'class="pill running"' in page
    # 0.31 s a step, 200 steps to go.
    assert "time left</dt><dd>62 s" in page and "of 400" in page
    assert 'class="pill stopped"' in text(run) and "start the same command again" in text(run)


def test_only_policy_allowed_scripts_and_no_address_outside(finished, monkeypatch):
    monkeypatch.undo()
    import base64
    import hashlib

    page = write_report(finished, False).read_text()
    assert len(page) > 4_000_000
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1].replace("&#39;", "'")
    assert "default-src 'none'" in policy and "http" not in policy
    scripts = re.findall(r"<script>(.*?)</script>", page, flags=re.S)
    for script in scripts:
        assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy
    assert len(scripts) == 2
    assert not re.search(r"<(link|img|script|iframe)[^>]+(src|href)=\"(?!data:)", text(finished))


def test_names_are_escaped(finished):
    page = text(finished)
    assert "<img src=x" not in page and "&lt;img src=x onerror=" in page
    assert "window.hacked=1</script>" not in page
    assert HOSTILE not in page


@pytest.mark.parametrize("missing", ["config.json", "metrics.jsonl", "incidents.jsonl", "pictures", "everything"])
def test_missing_files_leave_a_page(finished, tmp_path, missing):
    run = tmp_path / "run"
    if missing == "everything":
        run.mkdir()
    else:
        shutil.copytree(finished, run)
        target = run / missing
        shutil.rmtree(target) if target.is_dir() else target.unlink()
    assert "opendino" in text(run, running=True) and text(run)


@pytest.mark.parametrize(
    "line",
    [
        '{"kind":"step","step":410,"loss":NaN,"losses":{"dino":Infinity},"time_s":null}',
        '{"kind":"step","step":410,"losses":7,"loss":"high","images_per_s":"many","time_s":"x"}',
        '{"kind":"health","step":410}',
        '{"kind":"knn","step":410,"value":null}',
        '{"kind":"picture","step":410,"path":"../../../../etc/passwd"}',
        '{"kind":"picture","step":410,"path":"config.json"}',
        '{"kind":"picture","step":410}',
        '{"step":410}',
        "[1, 2]",
        "\x00\x00\x00",
        '{"kind":"step","step":"many"}',
    ],
)
def test_odd_rows_leave_a_page(finished, tmp_path, line):
    run = shutil.copytree(finished, tmp_path / "run")
    with open(run / "metrics.jsonl", "a") as file:
        file.write(line + "\n")
    page = text(run, running=True)
    assert "k-NN accuracy" in page and page.count('alt="feature maps at step') == 12
    for data in re.findall(r'<script type="application/json">(.*?)</script>', page, flags=re.S):
        json.loads(data, parse_constant=pytest.fail)


def test_no_labels_is_said(tmp_path):
    run = make_run(tmp_path / "run", steps=100, labels=False, hostile=False)
    page = text(run)
    assert "not sorted into class folders" in page and "only labels can tell" in page


def test_model_that_transformers_opens(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    assert "AutoModel" not in text(run)
    (run / "model").mkdir()
    (run / "model" / "config.json").write_text('{"model_type": "dinov3_vit"}')
    assert "AutoModel.from_pretrained(" in text(run)


def test_sittings_add_up_and_time_left_counts_this_one(tmp_path):
    rows = [(10, 5.0), (20, 10.0), (30, 2.0), (40, 6.0)]  # resumed after step 20, now at .4 s a step
    (tmp_path / "config.json").write_text('{"steps": 100}')
    (tmp_path / "metrics.jsonl").write_text(
        "".join(json.dumps({"kind": "step", "step": step, "time_s": time}) + "\n" for step, time in rows)
    )
    record = read_record(tmp_path)
    assert record.seconds() == 16.0
    assert record.seconds_left() == pytest.approx(0.4 * 60)


def test_long_curves_are_thinned_to_means():
    rows = [{"step": step, "loss": float(step % 2)} for step in range(10_000)]
    steps, values = series(rows, "loss")
    assert len(steps) <= MAX_POINTS and steps[-1] == 9_999
    assert sum(values) / len(values) == pytest.approx(0.5, abs=0.05)
    assert series([{"step": 1, "loss": None}, {"step": 2}, {"step": 3, "loss": 2.0}], "loss") == ([1, 3], [None, 2.0])


def test_a_stage_says_what_it_did_and_shows_sizes_before_and_after(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "stage")
    config = json.loads((run / "config.json").read_text()) | {"stage": {"name": "highres", "start": "runs/before"}}
    (run / "config.json").write_text(json.dumps(config))
    log = MetricsLog(run / "metrics.jsonl")
    for step, values in ((0, (20.0, 18.0)), (400, (21.0, 22.0))):
        rows = [
            {"px": px, "miou": v, "agreement": v / 25, "picture_iou": []}
            for px, v in zip((32, 64), values, strict=True)
        ]
        log.append("sizes", step, rows=rows)
    page = text(run)
    assert "Dense features: gained, k-NN segmentation 18.0 -&gt; 26.8 %" in page
    assert "start of the stage" in page and "random start" not in page
    charts = {chart.title: chart for chart in dense_charts(read_record(run))}
    curve = charts["Segmentation by input size"].plot
    assert [(line["name"], line["x"], line["y"]) for line in curve["data"]] == [
        ("before", [32, 64], [20.0, 18.0]),
        ("after", [32, 64], [21.0, 22.0]),
    ]
    assert curve["layout"]["xaxis"]["title"]["text"] == "input side in pixels"
    assert "Patch similarities by input size" in charts


def test_foreign_rows_about_dense_features_end_no_page(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "foreign")
    log = MetricsLog(run / "metrics.jsonl")
    log.truncate(0)
    log.append("drift", 10, cls_patch_cosine=None)
    log.append("drift", 20, miou="much")
    log.append("sizes", 20, rows="none")
    assert "Dense features" not in text(run)


def test_knn_chart_shows_chance_and_start_only_when_known():
    rows = [{"step": step, "value": 20.0 + step, "low": 19.0, "high": 30.0} for step in (5, 10)]
    assert knn_chart(rows, 10).plot["layout"]["shapes"] == []
    rows = [{"step": step, "value": 20.0 + step, "low": 19.0, "high": 30.0, "chance": 5.0} for step in (0, 10)]
    words = [note["text"] for note in knn_chart(rows, 10).plot["layout"]["annotations"]]
    assert words == ["chance 5.0 %", "random start 20.0 %"]


def test_a_protocol_has_one_chart_a_data_set_of_its_first_number():
    spans = {"low": 1.0, "high": 3.0, "measure": "m", "high_is_good": False}
    rows = [
        {"step": step, "protocol": "depth-linear", "dataset": name, "metric": metric, "value": 2.0 - step / 10, **spans}
        for step in (0, 5)
        for name in ("rooms", "streets")
        for metric in ("rmse", "arel")
    ]
    charts = list(protocol_charts([*rows, {"step": 6, "protocol": "health", "metric": "rank", "value": None}], 5))
    assert [chart.title for chart in charts] == ["depth-linear on rooms", "depth-linear on streets"]
    (band, curve), layout = charts[0].plot["data"], charts[0].plot["layout"]
    assert curve["x"] == [0, 5] and curve["y"] == [2.0, 1.5] and band["y"] == [3.0, 3.0, 1.0, 1.0]
    assert layout["annotations"][0]["text"] == "random start 2 m" and "low is good" in charts[0].normal
    assert charts[0].says.startswith("rmse of the frozen backbone")


def test_bars_carry_their_intervals():
    bar = bar_chart("scores", [Bar("trained", 40.0, 36.0, 43.0, True), Bar("pixels", 16.0, 13.0, 19.0)], "", "", 5.0)
    error = bar.plot["data"][0]["error_x"]
    assert error["array"] == [3.0, 3.0] and error["arrayminus"] == [4.0, 3.0]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (89, "89 s"), (90, "2 min"), (5000, "83 min"), (5400, "1 h 30 min"), (172800, "2 days 0 h")],
)
def test_duration(seconds, words):
    assert duration(seconds) == words


def test_demo_page_shows_scores_curves_and_neighbours(finished, tmp_path):
    page = make_demo(tmp_path, read_record(finished).rows).read_text()
    assert page.count('class="right"') == 4 and page.count('class="wrong"') == 6
    for words in ("39.8 %", "k-NN accuracy", "DINO loss", "chance 5.0 %", "1,800 training tiles", "opendino pretrain"):
        assert words in page, words
    assert "<img src=x" not in page


def test_demo_page_without_curves_or_pictures(tmp_path):
    assert "Nearest neighbours" in make_demo(tmp_path, []).read_text()
